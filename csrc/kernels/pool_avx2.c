#include "kernels/pool.h"

#include "kernels/isa_avx2.h"
#ifdef GAP_ISA
#include "kernels/pool.inc"
#include "kernels/isa_end.h"
#endif
