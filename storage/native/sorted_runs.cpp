// Merging of ascending runs, with no copy of a text but into the block that is made.
#include "sorted_runs.h"

#include <algorithm>
#include <cstring>

namespace memdb_storage {
namespace {

constexpr uint8_t kSeparator = 0xff;  // in no UTF-8 text

template <class Number>
Number get(const uint8_t* in) {
  Number number = 0;
  for (size_t i = 0; i < sizeof(Number); ++i) number |= static_cast<Number>(in[i]) << (8 * i);
  return number;
}

template <class Number>
void put(uint8_t* out, Number number) {
  for (size_t i = 0; i < sizeof(Number); ++i) out[i] = static_cast<uint8_t>(number >> (8 * i));
}

}  // namespace

bool read_entries(Bytes block, std::vector<Entry>* entries) {
  entries->clear();
  if (block.size % kEntryBytes) return false;
  const size_t count = block.size / kEntryBytes;
  entries->reserve(count);
  for (size_t i = 0; i < count; ++i)
    entries->push_back({get<uint64_t>(block.data + 8 * i),
                        get<uint32_t>(block.data + 8 * count + 4 * i)});
  return true;
}

void write_entries(const Entry* entries, size_t count, uint8_t* out) {
  for (size_t i = 0; i < count; ++i) {
    put<uint64_t>(out + 8 * i, entries[i].key);
    put<uint32_t>(out + 8 * count + 4 * i, entries[i].row);
  }
}

void merge_entries(const std::vector<Entry>& old, const Entry* given, size_t count, Merged* out) {
  out->entries.clear();
  out->entries.reserve(old.size() + count);
  out->new_count = 0;
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    while (at < old.size() && old[at] < given[i]) out->entries.push_back(old[at++]);
    if (at < old.size() && old[at] == given[i]) continue;
    if (out->new_count++ == 0) out->appended = at == old.size();
    out->entries.push_back(given[i]);
  }
  out->entries.insert(out->entries.end(), old.begin() + at, old.end());
}

int compare(const Text& a, const Text& b) {
  const size_t shorter = std::min(a.text.size, b.text.size);
  const int order = shorter ? std::memcmp(a.text.data, b.text.data, shorter) : 0;
  if (order) return order < 0 ? -1 : 1;
  if (a.text.size != b.text.size) return a.text.size < b.text.size ? -1 : 1;
  return a.row == b.row ? 0 : a.row < b.row ? -1 : 1;
}

bool read_texts(Bytes block, TextBlock* out) {
  out->suffixes.clear();
  out->prefix = {block.data, 0};
  if (block.size == 0) return true;
  if (block.size < 2) return false;
  const size_t count = get<uint16_t>(block.data), head = 2 + 4 * count;
  if (block.size < head) return false;
  const uint8_t *at = block.data + head, *const end = block.data + block.size;
  const auto next = [&at, end] {
    const void* found = at == end ? nullptr : std::memchr(at, kSeparator, end - at);
    const uint8_t* stop = found ? static_cast<const uint8_t*>(found) : end;
    const Bytes piece{at, static_cast<size_t>(stop - at)};
    at = stop;
    return piece;
  };
  out->prefix = next();
  out->suffixes.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    if (at == end) return false;  // a separator begins each
    ++at;
    const Bytes suffix = next();
    out->suffixes.push_back({suffix, get<uint32_t>(block.data + 2 + 4 * i)});
  }
  return at == end;
}

bool join_texts(const TextBlock& block, const Text* given, size_t count,
                std::vector<uint8_t>* out) {
  const Bytes prefix = block.prefix;
  std::vector<Text> merged;
  merged.reserve(block.suffixes.size() + count);
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    const Bytes text = given[i].text;
    if (text.size < prefix.size ||
        (prefix.size && std::memcmp(text.data, prefix.data, prefix.size)))
      return false;
    const Text suffix{{text.data + prefix.size, text.size - prefix.size}, given[i].row};
    int order = 1;
    for (; at < block.suffixes.size(); ++at) {
      order = compare(block.suffixes[at], suffix);
      if (order >= 0) break;
      merged.push_back(block.suffixes[at]);
    }
    if (at == block.suffixes.size() || order != 0) merged.push_back(suffix);
  }
  merged.insert(merged.end(), block.suffixes.begin() + at, block.suffixes.end());
  size_t size = 2 + prefix.size + 5 * merged.size();
  for (const Text& one : merged) size += one.text.size;
  if (size > kSmallMaxBytes - 4 || merged.size() > 0xffff) return false;
  out->resize(size);
  uint8_t* to = out->data();
  put<uint16_t>(to, static_cast<uint16_t>(merged.size()));
  to += 2;
  for (const Text& one : merged) {
    put<uint32_t>(to, one.row);
    to += 4;
  }
  if (prefix.size) std::memcpy(to, prefix.data, prefix.size);
  to += prefix.size;
  for (const Text& one : merged) {
    *to++ = kSeparator;
    if (one.text.size) std::memcpy(to, one.text.data, one.text.size);
    to += one.text.size;
  }
  return true;
}

}  // namespace memdb_storage
