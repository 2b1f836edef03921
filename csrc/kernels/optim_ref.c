#include "kernels/optim.h"

#include "kernels/isa_ref.h"
#ifdef GAP_ISA
#include "kernels/optim.inc"
#endif
