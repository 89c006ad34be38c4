// A set as CRoaring keeps it: lists of at most 4,096 rows a container, else bits.
#include "row_union.h"

#include <algorithm>
#include <cstring>

namespace memdb_storage {
namespace {

constexpr uint32_t kCookie = 12346;
constexpr size_t kWords = 1024;      // of a container's bits
constexpr size_t kArrayMax = 4096;   // rows of an array container
constexpr size_t kListedMax = 256;   // rows that are cheaper to sort than 8 KiB to clear

uint32_t u32_at(const uint8_t* p) {
  return p[0] | p[1] << 8 | p[2] << 16 | static_cast<uint32_t>(p[3]) << 24;
}

void put(Payload* out, uint64_t number, int bytes) {
  for (int i = 0; i < bytes; ++i) out->push_back(static_cast<uint8_t>(number >> 8 * i));
}

int lowest_bit(uint64_t word) {
#if defined(__GNUC__)
  return __builtin_ctzll(word);
#else
  int at = 0;
  while (!(word >> at & 1)) ++at;
  return at;
#endif
}

size_t count_of(uint64_t word) {  // Hamming weight by halves: no instruction set is assumed
  word -= word >> 1 & 0x5555555555555555ULL;
  word = (word & 0x3333333333333333ULL) + (word >> 2 & 0x3333333333333333ULL);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
  return word * 0x0101010101010101ULL >> 56;
}

}  // namespace

RowUnion::Container* RowUnion::at(uint32_t key) {
  if (key >= places_.size()) places_.resize(key + 1, -1);
  if (places_[key] < 0) {
    places_[key] = static_cast<int32_t>(containers_.size());
    containers_.push_back({key, {}, {}});
  }
  return &containers_[places_[key]];
}

void RowUnion::make_bits(Container* container) {
  if (!container->bits.empty()) return;
  container->bits.assign(kWords, 0);
  for (const uint16_t row : container->few) container->bits[row >> 6] |= 1ULL << (row & 63);
  container->few.clear();
}

void RowUnion::add(uint32_t row) {
  Container* one = at(row >> 16);
  const uint32_t low = row & 0xffff;
  if (one->bits.empty()) {
    one->few.push_back(static_cast<uint16_t>(low));
    if (one->few.size() > kListedMax) make_bits(one);
  } else {
    one->bits[low >> 6] |= 1ULL << (low & 63);
  }
}

void RowUnion::add_interval(Interval rows) {
  for (uint32_t key = rows.first >> 16;; ++key) {
    const uint32_t low = key << 16, high = low | 0xffff;
    const uint32_t first = std::max(rows.first, low) & 0xffff;
    const uint32_t last = std::min(rows.last, high) & 0xffff;
    if (last - first < 4) {
      for (uint32_t row = first; row <= last; ++row) add(low | row);
    } else {
      Container* one = at(key);
      make_bits(one);
      for (uint32_t word = first >> 6; word <= last >> 6; ++word) {
        uint64_t mask = ~0ULL;
        if (word == first >> 6) mask &= ~0ULL << (first & 63);
        if (word == last >> 6) mask &= ~0ULL >> (63 - (last & 63));
        one->bits[word] |= mask;
      }
    }
    if (key == rows.last >> 16) return;
  }
}

bool RowUnion::add_bits(uint32_t first, Bytes bits) {
  if (first % kChunkRows || bits.size > kChunkRows / 8) return false;
  Container* one = at(first >> 16);
  make_bits(one);
  for (size_t i = 0; i < bits.size; ++i) {  // byte by byte: the order of words does not matter
    const size_t place = (first & 0xffff) / 8 + i;
    one->bits[place >> 3] |= static_cast<uint64_t>(bits.data[i]) << 8 * (place & 7);
  }
  return true;
}

bool RowUnion::add_block(uint32_t first, Bytes block) {
  if (!block.size) return false;
  const Bytes rest{block.data + 1, block.size - 1};
  if (block.data[0] == 'A') return add_rows(rest);
  if (block.data[0] == 'B') return add_bits(first, rest);
  std::vector<Interval> intervals;
  if (block.data[0] != 'R' || !read_roaring(rest, &intervals)) return false;
  for (const Interval& one : intervals) add_interval(one);
  return true;
}

bool RowUnion::add_rows(Bytes packed) {
  if (packed.size % 4) return false;
  for (size_t i = 0; i < packed.size; i += 4) add(u32_at(packed.data + i));
  return true;
}

size_t RowUnion::settle(Container* one) {
  if (one->bits.empty()) {
    std::sort(one->few.begin(), one->few.end());
    one->few.erase(std::unique(one->few.begin(), one->few.end()), one->few.end());
    return one->few.size();
  }
  size_t count = 0;
  for (const uint64_t word : one->bits) count += count_of(word);
  return count;
}

void RowUnion::write(Payload* out) {
  std::sort(containers_.begin(), containers_.end(),
            [](const Container& a, const Container& b) { return a.key < b.key; });
  std::vector<size_t> counts;
  size_t kept = 0;
  for (size_t i = 0; i < containers_.size(); ++i) {
    const size_t count = settle(&containers_[i]);
    if (!count) continue;  // a block of bits that has none
    if (kept < i) std::swap(containers_[kept], containers_[i]);
    ++kept;
    counts.push_back(count);
  }
  out->clear();
  put(out, kCookie, 4);
  put(out, kept, 4);
  for (size_t i = 0; i < counts.size(); ++i) {
    put(out, containers_[i].key, 2);
    put(out, counts[i] - 1, 2);
  }
  size_t place = 8 + 8 * counts.size();
  for (const size_t count : counts) {
    put(out, place, 4);
    place += count <= kArrayMax ? 2 * count : 8 * kWords;
  }
  out->reserve(place);
  for (size_t i = 0; i < counts.size(); ++i) {
    const Container& one = containers_[i];
    if (one.bits.empty()) {
      for (const uint16_t row : one.few) put(out, row, 2);
    } else if (counts[i] <= kArrayMax) {
      for (size_t word = 0; word < kWords; ++word)
        for (uint64_t left = one.bits[word]; left; left &= left - 1)
          put(out, 64 * word + lowest_bit(left), 2);
    } else {
      for (const uint64_t word : one.bits) put(out, word, 8);
    }
  }
  places_.clear();
  containers_.clear();
}

}  // namespace memdb_storage
