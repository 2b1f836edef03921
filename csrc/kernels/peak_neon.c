#include "kernels/peak.h"

#include "kernels/isa_neon.h"
#ifdef GAP_ISA
#include "kernels/peak.inc"
#endif
