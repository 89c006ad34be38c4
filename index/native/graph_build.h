// Linking slots into a graph in memory: walks on estimates, robust prune on 8-bit rows.
#pragma once
#include <cstdint>
#include <vector>

#include "graph_walk.h"
#include "kernels.h"

namespace memdb {

// What distances between rows are made of, by slot. With n the numbers of two rows,
// |a - b|^2 = square_a + square_b - 2 (factor_a factor_b <n_a, n_b> + extra_a extra_b).
struct RowShape {
  float factor;
  float square;  // with extra^2
  float extra;   // the coordinate that makes inner products distances, else 0
  float unused;
};

struct Rows {
  const int8_t* first;
  uint64_t stride;
  uint64_t count;
  uint32_t dim;
  const RowShape* shapes;

  const int8_t* numbers(uint32_t slot) const { return first + slot * stride; }
};

// Neighbours by slot: a degree, then `room` slots. Threads link different slots side by side: words
// are read and written whole, and a list that is being changed may be read half old, half new.
struct Lists {
  uint32_t* first;
  uint64_t count;
  uint32_t room;

  uint32_t* list(uint32_t slot) const { return first + static_cast<uint64_t>(slot) * (room + 1); }
};

struct LinkRequest {
  const RowCodes* codes;
  const Rows* rows;
  Lists lists;
  Entries entries;
  const float* centre;
  const uint32_t* slots;  // to link, distinct, all within codes, rows and lists
  uint64_t slot_count;
  uint32_t degree;   // neighbours that pruning leaves, at most lists.room
  uint32_t breadth;  // of a slot's walk
  float alpha;
  uint32_t threads;
};

// Gives every slot neighbours, and its neighbours an edge back. One thread does it in order.
void link_slots(const Kernels& kernels, const LinkRequest& request);

// Prunes the lists of the slots that have more than `degree` neighbours.
void trim_lists(const Kernels& kernels, const LinkRequest& request);

// Marks in `reached`, a byte a slot, what the entries lead to.
void mark_reached(const Lists& lists, const Entries& entries, uint8_t* reached);

// Orders `count` slots, distinct and within the lists, so that those that are looked at together
// lie together: in groups of `together`, each a slot and what is nearest to it by edges. The first
// begin at the entries.
void affinity_order(const Lists& lists, const Entries& entries, uint32_t together, uint32_t* slots,
                    uint64_t count);

}  // namespace memdb
