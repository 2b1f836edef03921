#include "kernels/optim.h"

#include "kernels/isa_avx2.h"
#ifdef GAP_ISA
#include "kernels/optim.inc"
#include "kernels/isa_end.h"
#endif
