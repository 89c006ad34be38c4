// crc32c (Castagnoli), the checksum of every stored value, in pieces: a value's key comes first.
#pragma once

#include <cstddef>
#include <cstdint>

namespace memdb_storage {

// The checksum state after `size` more bytes; a checksum is ~crc32c(~0, ...) over all pieces.
using Crc32c = uint32_t (*)(uint32_t state, const uint8_t* data, size_t size);

uint32_t crc32c_tables(uint32_t state, const uint8_t* data, size_t size);

// By the CPU's own instruction; null where this build or `dispatch` says that it has none.
Crc32c crc32c_sse42();
Crc32c crc32c_arm();

// The fastest that this machine runs.
Crc32c crc32c_best();

}  // namespace memdb_storage
