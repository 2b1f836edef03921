#include "kernels/norm.h"

#include "kernels/isa_neon.h"
#ifdef GAP_ISA
#include "kernels/norm.inc"
#endif
