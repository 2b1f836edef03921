#include "kernels/pool.h"

#include "kernels/isa_neon.h"
#ifdef GAP_ISA
#include "kernels/pool.inc"
#endif
