#include "kernels/eltwise.h"

#include "kernels/isa_ref.h"
#ifdef GAP_ISA
#include "kernels/eltwise.inc"
#endif
