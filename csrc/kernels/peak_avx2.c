#include "kernels/peak.h"

#include "kernels/isa_avx2.h"
#ifdef GAP_ISA
#include "kernels/peak.inc"
#include "kernels/isa_end.h"
#endif
