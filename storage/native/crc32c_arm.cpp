// crc32c by the instruction of ARMv8.1, where the target has it: all of macOS, Linux if built so.
#include "crc32c.h"

#if defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>

#include <cstring>

namespace memdb_storage {
namespace {

uint32_t update(uint32_t state, const uint8_t* data, size_t size) {
  for (; size >= 8; size -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    state = __crc32cd(state, word);
  }
  for (; size > 0; --size, ++data) state = __crc32cb(state, *data);
  return state;
}

}  // namespace

Crc32c crc32c_arm() { return &update; }

}  // namespace memdb_storage
#else
namespace memdb_storage {
Crc32c crc32c_arm() { return nullptr; }
}  // namespace memdb_storage
#endif
