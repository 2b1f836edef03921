#include "kernels/norm.h"

#include "kernels/isa_ref.h"
#ifdef GAP_ISA
#include "kernels/norm.inc"
#endif
