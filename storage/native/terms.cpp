// Counting and sorting of hashes; no text comes here.
#include "terms.h"

#include <algorithm>
#include <cstring>

namespace memdb_storage {

Hash read_hash(const uint8_t* in) {
  Hash hash{0, 0};
  for (int i = 0; i < 8; ++i) hash.high = hash.high << 8 | in[i];
  for (int i = 8; i < 12; ++i) hash.low = hash.low << 8 | in[i];
  return hash;
}

void write_hash(uint8_t* out, const Hash& hash) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<uint8_t>(hash.high >> (56 - 8 * i));
  for (int i = 0; i < 4; ++i) out[8 + i] = static_cast<uint8_t>(hash.low >> (24 - 8 * i));
}

void count_hashes(std::vector<Hash>* hashes, std::vector<Counted>* out) {
  std::sort(hashes->begin(), hashes->end());
  out->clear();
  for (const Hash& hash : *hashes) {
    if (out->empty() || !(out->back().hash == hash))
      out->push_back({hash, 1});
    else if (out->back().tf < 255)
      ++out->back().tf;
  }
}

bool read_forward(Bytes forward, uint32_t row, uint8_t length, std::vector<Posting>* out) {
  if (forward.size < 4 || (forward.size - 4) % (kHashBytes + 1)) return false;
  const size_t count = (forward.size - 4) / (kHashBytes + 1);
  const uint8_t *tfs = forward.data + 4, *hashes = tfs + count;
  out->push_back({{0, 0}, row, 1, length});
  for (size_t i = 0; i < count; ++i)
    out->push_back({read_hash(hashes + kHashBytes * i), row, tfs[i], length});
  return true;
}

size_t value_end(const std::vector<Posting>& postings, size_t begin) {
  const size_t most = std::min(postings.size(), begin + kPostingsPerValue);
  size_t end = begin + 1;
  while (end < most && postings[end].hash == postings[begin].hash) ++end;
  return end;
}

void write_postings(const Posting* postings, size_t count, uint8_t* out) {
  for (size_t i = 0; i < count; ++i, out += kPostingBytes) {
    for (int j = 0; j < 4; ++j) out[j] = static_cast<uint8_t>(postings[i].row >> (8 * j));
    out[4] = postings[i].tf;
    out[5] = postings[i].length;
  }
}

}  // namespace memdb_storage
