// crc32c by the instruction of SSE 4.2. Compiled with that set; nothing here runs unless asked for.
#include "crc32c.h"

#if (defined(__SSE4_2__) && defined(__x86_64__)) || (defined(_MSC_VER) && defined(_M_X64))
#include <nmmintrin.h>

#include <cstring>

namespace memdb_storage {
namespace {

uint32_t update(uint32_t state, const uint8_t* data, size_t size) {
  uint64_t wide = state;
  for (; size >= 8; size -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  uint32_t rest = static_cast<uint32_t>(wide);
  for (; size > 0; --size, ++data) rest = _mm_crc32_u8(rest, *data);
  return rest;
}

}  // namespace

Crc32c crc32c_sse42() { return &update; }

}  // namespace memdb_storage
#else
namespace memdb_storage {
Crc32c crc32c_sse42() { return nullptr; }
}  // namespace memdb_storage
#endif
