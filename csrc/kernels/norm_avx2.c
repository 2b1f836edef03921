#include "kernels/norm.h"

#include "kernels/isa_avx2.h"
#ifdef GAP_ISA
#include "kernels/norm.inc"
#include "kernels/isa_end.h"
#endif
