// BLAKE2b as RFC 7693 describes it, section 3.
#include "blake2b.h"

#include <algorithm>
#include <cstring>

namespace memdb_storage {
namespace {

constexpr uint64_t kInitial[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b,
                                  0xa54ff53a5f1d36f1, 0x510e527fade682d1, 0x9b05688c2b3e6c1f,
                                  0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

constexpr uint8_t kOrder[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

inline uint64_t turned(uint64_t word, int bits) { return word >> bits | word << (64 - bits); }

inline void mix(uint64_t* v, int a, int b, int c, int d, uint64_t x, uint64_t y) {
  v[a] += v[b] + x;
  v[d] = turned(v[d] ^ v[a], 32);
  v[c] += v[d];
  v[b] = turned(v[b] ^ v[c], 24);
  v[a] += v[b] + y;
  v[d] = turned(v[d] ^ v[a], 16);
  v[c] += v[d];
  v[b] = turned(v[b] ^ v[c], 63);
}

}  // namespace

Blake2b::Blake2b(Bytes key, size_t digest_bytes) : digest_bytes_(digest_bytes) {
  std::copy(kInitial, kInitial + 8, state_);
  state_[0] ^= 0x01010000 ^ key.size << 8 ^ digest_bytes;
  if (key.size) {  // a block of its own
    std::memset(block_, 0, sizeof block_);
    std::memcpy(block_, key.data, key.size);
    filled_ = sizeof block_;
  }
}

void Blake2b::update(Bytes piece) {
  while (piece.size) {
    if (filled_ == sizeof block_) compress(false);  // the last block waits for `finish`
    const size_t taken = std::min(piece.size, sizeof block_ - filled_);
    std::memcpy(block_ + filled_, piece.data, taken);
    filled_ += taken;
    piece = {piece.data + taken, piece.size - taken};
  }
}

void Blake2b::finish(uint8_t* digest) {
  std::memset(block_ + filled_, 0, sizeof block_ - filled_);
  compress(true);
  for (size_t i = 0; i < digest_bytes_; ++i)
    digest[i] = static_cast<uint8_t>(state_[i / 8] >> (8 * (i % 8)));
}

void Blake2b::compress(bool last) {
  taken_ += filled_;
  filled_ = 0;
  uint64_t words[16], v[16];
  for (int i = 0; i < 16; ++i) {
    words[i] = 0;
    for (int j = 7; j >= 0; --j) words[i] = words[i] << 8 | block_[8 * i + j];
  }
  std::copy(state_, state_ + 8, v);
  std::copy(kInitial, kInitial + 8, v + 8);
  v[12] ^= taken_;
  if (last) v[14] = ~v[14];
  for (int round = 0; round < 12; ++round) {
    const uint8_t* s = kOrder[round % 10];
    mix(v, 0, 4, 8, 12, words[s[0]], words[s[1]]);
    mix(v, 1, 5, 9, 13, words[s[2]], words[s[3]]);
    mix(v, 2, 6, 10, 14, words[s[4]], words[s[5]]);
    mix(v, 3, 7, 11, 15, words[s[6]], words[s[7]]);
    mix(v, 0, 5, 10, 15, words[s[8]], words[s[9]]);
    mix(v, 1, 6, 11, 12, words[s[10]], words[s[11]]);
    mix(v, 2, 7, 8, 13, words[s[12]], words[s[13]]);
    mix(v, 3, 4, 9, 14, words[s[14]], words[s[15]]);
  }
  for (int i = 0; i < 8; ++i) state_[i] ^= v[i] ^ v[i + 8];
}

}  // namespace memdb_storage
