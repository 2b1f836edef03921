#include "kernels/eltwise.h"

#include "kernels/isa_neon.h"
#ifdef GAP_ISA
#include "kernels/eltwise.inc"
#endif
