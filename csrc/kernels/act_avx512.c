#include "kernels/act.h"

#include "kernels/isa_avx512.h"
#ifdef GAP_ISA
#include "kernels/act.inc"
#include "kernels/isa_end.h"
#endif
