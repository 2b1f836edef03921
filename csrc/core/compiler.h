/* compiler.h — the one place for compiler extensions outside kernels/isa_*.h. */
#ifndef GAP_CORE_COMPILER_H
#define GAP_CORE_COMPILER_H

#define GAP_MUST_USE __attribute__((warn_unused_result))
#define GAP_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define GAP_THREAD_LOCAL _Thread_local
#define GAP_ALIGN 64 /* bytes: one cache line, one AVX-512 register */
/* Asks for the cache line at p: a hint, which may point anywhere. */
#define GAP_PREFETCH(p) __builtin_prefetch((p), 0, 2)
/* An exported row or function is still hidden from the dynamic linker: only bind/ exports a symbol. */
#define GAP_COUNTOF(a) ((int)(sizeof(a) / sizeof((a)[0])))

#endif
