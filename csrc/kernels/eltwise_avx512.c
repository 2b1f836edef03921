#include "kernels/eltwise.h"

#include "kernels/isa_avx512.h"
#ifdef GAP_ISA
#include "kernels/eltwise.inc"
#include "kernels/isa_end.h"
#endif
