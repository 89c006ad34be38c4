// A graph on pages, changed in place: slots are linked into it and taken out of it.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>

#include "graph.h"
#include "graph_walk.h"
#include "kernels.h"

namespace memdb {

struct LiveRequest {
  const GraphPages* graph;
  const RowCodes* codes;
  const Records* records;
  Entries entries;
  const float* signs;   // of the rotation, (kRotationRounds, dim)
  const float* centre;  // rotated, (dim)
  float longest;        // kInnerProduct: the squared length that vectors are completed to
  const uint32_t* slots;  // distinct, all within codes and records
  uint64_t slot_count;
  uint32_t breadth;  // of a slot's walk
  float alpha;
  const std::atomic<bool>* stop = nullptr;  // once true, the work is given up: see when_idle
};

// Lists that changed: a slot, and a row of how many neighbours, then these (1 + degree).
struct ChangedLists {
  uint32_t* slots;
  uint32_t* lists;
  uint64_t room;
};

// How many lists linking or unlinking one slot may change.
uint64_t most_changed(uint32_t degree, uint32_t breadth);

// Gives every slot neighbours, and its neighbours an edge back. Neighbours are in the graph, or
// among the slots that came before. Returns how many lists changed.
uint64_t link_in_place(const Kernels& kernels, const LiveRequest& request, ChangedLists changed);

// Takes the slots, which are in the graph, out of the lists of those that a walk for each finds:
// in its place there are up to three that are near. Returns how many lists of others changed.
uint64_t unlink_in_place(const Kernels& kernels, const LiveRequest& request,
                         ChangedLists changed);

// Does `work` on a thread of its own that runs where nobody else wants the core, so that searches
// find it free; it may hold no lock. False, and nothing is changed, where it got nowhere within
// `patience_ms`, or where the system has no such threads: then the caller does the work.
bool when_idle(const LiveRequest& request, uint32_t patience_ms,
               const std::function<uint64_t(const LiveRequest&)>& work, uint64_t& changed);

// Whole pages in which these lists have taken the place of the old ones: `places` says where, by
// list; a count of kErased leaves a record of zeros. Pages that are not sound begin empty. Returns
// how many pages there are; both outputs have room for one a list.
constexpr uint32_t kErased = 0xffffffffu;
uint64_t pages_with(const Kernels& kernels, const GraphPages& graph, const uint32_t* slots,
                    const uint32_t* places, const uint32_t* lists, uint64_t count,
                    uint32_t* numbers, uint8_t* pages);

// Marks in `reached`, a byte a place, what the entries lead to.
void mark_led_to(const Kernels& kernels, const GraphPages& graph, const Entries& entries,
                 uint8_t* reached);

}  // namespace memdb
