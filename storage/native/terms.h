// Terms of texts counted and inverted: storage/postings/layout.py has the grammar of the result.
#pragma once

#include <cstdint>
#include <vector>

#include "seal.h"

namespace memdb_storage {

constexpr size_t kHashBytes = 12;
constexpr size_t kPostingBytes = 6;
constexpr size_t kPostingsPerValue = (kSmallMaxBytes - 4) / kPostingBytes;

// A term's hash as numbers that compare as its bytes do.
struct Hash {
  uint64_t high;
  uint32_t low;

  bool operator<(const Hash& other) const {
    return high != other.high ? high < other.high : low < other.low;
  }
  bool operator==(const Hash& other) const { return high == other.high && low == other.low; }
};

Hash read_hash(const uint8_t* in);
void write_hash(uint8_t* out, const Hash& hash);

// The distinct hashes of `hashes`, which this sorts, each with how often it occurs, at most 255.
struct Counted {
  Hash hash;
  uint8_t tf;
};
void count_hashes(std::vector<Hash>* hashes, std::vector<Counted>* out);

struct Posting {
  Hash hash;
  uint32_t row;
  uint8_t tf, length;

  bool operator<(const Posting& other) const {
    return hash == other.hash ? row < other.row : hash < other.hash;
  }
};

// Add the postings of a forward row, and that of the hash which every row has; false where the
// forward row has an impossible length.
bool read_forward(Bytes forward, uint32_t row, uint8_t length, std::vector<Posting>* out);

// Where sorted postings are cut: a value holds those of one hash, and not too many.
size_t value_end(const std::vector<Posting>& postings, size_t begin);

void write_postings(const Posting* postings, size_t count, uint8_t* out);  // kPostingBytes each

}  // namespace memdb_storage
