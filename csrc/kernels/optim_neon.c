#include "kernels/optim.h"

#include "kernels/isa_neon.h"
#ifdef GAP_ISA
#include "kernels/optim.inc"
#endif
