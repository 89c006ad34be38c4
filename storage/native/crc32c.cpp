// crc32c by tables, eight bytes a step (slicing by 8), and the choice of the fastest for this CPU.
#include "crc32c.h"

#include <cstring>

#if defined(_MSC_VER) && defined(_M_X64)
#include <intrin.h>
#endif

namespace memdb_storage {
namespace {

struct Tables {
  uint32_t entry[8][256];

  Tables() {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint32_t state = byte;
      for (int bit = 0; bit < 8; ++bit)
        state = (state >> 1) ^ (0x82f63b78u & (0u - (state & 1)));
      entry[0][byte] = state;
    }
    for (int slice = 1; slice < 8; ++slice)
      for (uint32_t byte = 0; byte < 256; ++byte)
        entry[slice][byte] =
            (entry[slice - 1][byte] >> 8) ^ entry[0][entry[slice - 1][byte] & 0xff];
  }
};

#if defined(_MSC_VER) && defined(_M_X64)
bool has_sse42() {
  int regs[4];
  __cpuid(regs, 1);
  return (regs[2] >> 20) & 1;
}
#elif defined(__x86_64__)
bool has_sse42() { return __builtin_cpu_supports("sse4.2"); }
#else
bool has_sse42() { return false; }
#endif

Crc32c choose() {
  if (has_sse42() && crc32c_sse42() != nullptr) return crc32c_sse42();
  if (crc32c_arm() != nullptr) return crc32c_arm();
  return &crc32c_tables;
}

}  // namespace

uint32_t crc32c_tables(uint32_t state, const uint8_t* data, size_t size) {
  static const Tables tables;
  for (; size >= 8; size -= 8, data += 8) {
    // Byte by byte into a word, so that the order of the machine's bytes does not matter.
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word |= static_cast<uint64_t>(data[i]) << (8 * i);
    word ^= state;
    state = 0;
    for (int slice = 0; slice < 8; ++slice)
      state ^= tables.entry[7 - slice][(word >> (8 * slice)) & 0xff];
  }
  for (; size > 0; --size, ++data)
    state = (state >> 8) ^ tables.entry[0][(state ^ *data) & 0xff];
  return state;
}

Crc32c crc32c_best() {
  static const Crc32c best = choose();
  return best;
}

}  // namespace memdb_storage
