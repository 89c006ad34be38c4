// Entries merged into sorted blocks: numbers and times as in storage/filters/ordered.py, texts as
// in storage/filters/strings.py, which have the grammars.
#pragma once

#include <cstdint>
#include <vector>

#include "seal.h"

namespace memdb_storage {

struct Entry {
  uint64_t key;
  uint32_t row;

  bool operator<(const Entry& other) const {
    return key != other.key ? key < other.key : row < other.row;
  }
  bool operator==(const Entry& other) const { return key == other.key && row == other.row; }
};

constexpr size_t kEntryBytes = 12;

// The entries of a block; false where its size is not that of whole entries.
bool read_entries(Bytes block, std::vector<Entry>* entries);

void write_entries(const Entry* entries, size_t count, uint8_t* out);  // kEntryBytes each

// A block's entries with others, both ascending; `new_count` of those were not in it. `appended`:
// the first new one comes after all that were.
struct Merged {
  std::vector<Entry> entries;
  size_t new_count = 0;
  bool appended = false;
};
void merge_entries(const std::vector<Entry>& old, const Entry* given, size_t count, Merged* out);

struct Text {
  Bytes text;
  uint32_t row;
};

// -1, 0 or 1, as Python compares (text, row).
int compare(const Text& a, const Text& b);

// A block of texts taken apart without copying: text i is `prefix` and `suffixes[i]`.
struct TextBlock {
  Bytes prefix{nullptr, 0};
  std::vector<Text> suffixes;
};

// False where the block has no known form. A block of no bytes has no texts.
bool read_texts(Bytes block, TextBlock* out);

// A block with ascending texts added. False where they lack what all of the block's texts begin
// with, or would make it too large.
bool join_texts(const TextBlock& block, const Text* given, size_t count, std::vector<uint8_t>* out);

}  // namespace memdb_storage
