// Keyed BLAKE2b (RFC 7693) of short texts: what a table key holds in their place.
#pragma once

#include <cstdint>

#include "seal.h"

namespace memdb_storage {

// A digest of 1 to 64 bytes under a key of at most 64, over pieces given one after the other.
class Blake2b {
 public:
  Blake2b(Bytes key, size_t digest_bytes);

  void update(Bytes piece);
  void finish(uint8_t* digest);  // `digest_bytes`; nothing after it

 private:
  void compress(bool last);

  uint64_t state_[8];
  uint64_t taken_ = 0;  // bytes compressed; texts are under 2^64
  uint8_t block_[128];
  size_t filled_ = 0;
  size_t digest_bytes_;
};

}  // namespace memdb_storage
