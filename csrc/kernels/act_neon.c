#include "kernels/act.h"

#include "kernels/isa_neon.h"
#ifdef GAP_ISA
#include "kernels/act.inc"
#endif
