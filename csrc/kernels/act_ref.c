#include "kernels/act.h"

#include "kernels/isa_ref.h"
#ifdef GAP_ISA
#include "kernels/act.inc"
#endif
