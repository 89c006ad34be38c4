// The envelope of stored values: storage/values.py has its grammar and the twin of what is here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace memdb_storage {

constexpr size_t kSmallMaxBytes = 1900;
constexpr size_t kPageBytes = 4096;
constexpr size_t kPageHeaderBytes = 16;

struct Bytes {
  const uint8_t* data;
  size_t size;
};

// The size of the stored form of a payload.
size_t sealed_size(size_t payload_size);

// Write the stored form of `payload` under `key` to `out`, which has room for `sealed_size`.
void seal(Bytes key, Bytes payload, uint8_t* out);

// Find the payload in a stored value; false where the checksum or the grammar fails.
bool unseal(Bytes key, Bytes value, Bytes* payload);

}  // namespace memdb_storage
