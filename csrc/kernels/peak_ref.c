#include "kernels/peak.h"

#include "kernels/isa_ref.h"
#ifdef GAP_ISA
#include "kernels/peak.inc"
#endif
