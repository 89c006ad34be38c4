// Many blocks and lists of rows put together as one set; row_sets.h reads the blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "row_sets.h"

namespace memdb_storage {

// A set of rows while it grows: containers of 65,536 rows, each a list until it is worth bits.
class RowUnion {
 public:
  // A block of any kind that begins at row `first`; false where it has no known form.
  bool add_block(uint32_t first, Bytes block);

  // Rows as u32 little-endian, in any order; false for half a row.
  bool add_rows(Bytes packed);

  // In portable form without run containers. Empties the set.
  void write(Payload* out);

 private:
  struct Container {
    uint32_t key;
    std::vector<uint16_t> few;
    std::vector<uint64_t> bits;  // none, or one of each row
  };

  Container* at(uint32_t key);
  static void make_bits(Container* container);
  static size_t settle(Container* container);  // how many rows; a list is sorted
  void add(uint32_t row);
  void add_interval(Interval rows);
  bool add_bits(uint32_t first, Bytes bits);

  std::vector<int32_t> places_;  // by key: its container, or -1
  std::vector<Container> containers_;
};

}  // namespace memdb_storage
