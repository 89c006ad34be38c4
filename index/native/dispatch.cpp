// Which kernel tables this machine can run.
#include "kernels.h"

#if defined(_MSC_VER) && defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace memdb {
namespace {

#if defined(_MSC_VER) && defined(_M_X64)
bool supports(bool want_avx512) {
  int regs[4];
  __cpuid(regs, 0);
  if (regs[0] < 7) return false;
  __cpuidex(regs, 1, 0);
  const bool os_saves = (regs[2] >> 27) & 1;
  const bool base = ((regs[2] >> 12) & 1) && ((regs[2] >> 20) & 1) && ((regs[2] >> 29) & 1);
  if (!os_saves || !base) return false;
  const unsigned long long saved = _xgetbv(0);
  __cpuidex(regs, 7, 0);
  if ((saved & 0x6) != 0x6 || !((regs[1] >> 5) & 1)) return false;
  if (!want_avx512) return true;
  const bool foundation = ((regs[1] >> 16) & 1) && ((regs[1] >> 17) & 1);
  const bool wide = ((regs[1] >> 30) & 1) && ((regs[1] >> 31) & 1);
  return (saved & 0xE6) == 0xE6 && foundation && wide && ((regs[2] >> 14) & 1);
}
bool has_avx2() { return supports(false); }
bool has_avx512() { return supports(true); }
#elif defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vpopcntdq");
}
#else
bool has_avx2() { return false; }
bool has_avx512() { return false; }
#endif

}  // namespace

const Kernels* kernels_at(uint32_t level) {
  const Kernels* tables[4];
  uint32_t count = 0;
  tables[count++] = scalar_kernels();
  if (const Kernels* table = neon_kernels()) tables[count++] = table;
  if (has_avx2())
    if (const Kernels* table = avx2_kernels()) tables[count++] = table;
  if (has_avx512())
    if (const Kernels* table = avx512_kernels()) tables[count++] = table;
  return level < count ? tables[level] : nullptr;
}

}  // namespace memdb
