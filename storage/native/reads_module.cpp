// What reading adds to memdb.storage._native: many values joined, rows put together as a set, and
// postings scored.
#include "objects.h"

#include <nanobind/ndarray.h>

#include <cstring>
#include <stdexcept>
#include <vector>

#include "row_union.h"
#include "score.h"
#include "seal.h"

namespace memdb_storage {
namespace {

using Floats = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Norm = nb::ndarray<const float, nb::shape<256>, nb::c_contig, nb::device::cpu>;

nb::object joined(const std::vector<Bytes>& parts) {
  size_t total = 0;
  for (const Bytes& part : parts) total += part.size;
  nb::object made = new_bytes(total);
  uint8_t* out = bytes_of(made);
  for (const Bytes& part : parts) {
    if (part.size) std::memcpy(out, part.data, part.size);
    out += part.size;
  }
  return made;
}

nb::object unseal_joined(nb::iterable entries, nb::object stop) {
  std::vector<nb::object> kept;  // the entries, whose keys and values the parts point into
  std::vector<Bytes> keys, payloads;
  for (nb::handle item : entries) {
    const Pair pair(item.ptr());
    if (!stop.is_none()) {
      const int beyond = PyObject_RichCompareBool(pair.first, stop.ptr(), Py_GE);
      if (beyond < 0) throw nb::python_error();
      if (beyond) break;
    }
    const Bytes key = view(pair.first);
    payloads.push_back(payload_of(key, view(pair.second)));
    keys.push_back(key);
    kept.push_back(nb::borrow(item));
  }
  std::vector<uint8_t> firsts(payloads.size());
  for (size_t i = 0; i < payloads.size(); ++i)
    firsts[i] = payloads[i].size ? payloads[i].data[0] : 0;
  return new_tuple({joined(keys), joined(payloads), new_bytes(firsts.data(), firsts.size())});
}

uint32_t first_row(Bytes key) {
  uint32_t first = 0;
  for (size_t i = key.size < 4 ? 0 : key.size - 4; i < key.size; ++i)
    first = first << 8 | key.data[i];
  return first;
}

nb::object union_rows(nb::list blocks, nb::list packed) {
  RowUnion all;
  const Items given(blocks.ptr()), lists(packed.ptr());
  for (size_t i = 0; i < given.size; ++i) {
    const Pair pair(given[i]);
    if (!all.add_block(first_row(view(pair.first)), view(pair.second)))
      corrupt("a block of rows has no known form");
  }
  for (size_t i = 0; i < lists.size; ++i)
    if (!all.add_rows(view(lists[i]))) corrupt("a list of rows has no known form");
  Payload made;
  all.write(&made);
  return new_bytes(made.data(), made.size());
}

// The postings of a payload, and how many; every row is below `limit`.
size_t checked(Bytes postings, size_t limit) {
  if (postings.size % kPostingBytes) throw nb::value_error("postings of six bytes each");
  const size_t count = postings.size / kPostingBytes;
  if (postings_end(postings.data, count) > limit)
    throw nb::index_error("a posting's row is past the scores");
  return count;
}

}  // namespace

void bind_reads(nb::module_& module) {
  using namespace nb::literals;
  module.def("unseal_joined", &unseal_joined, "entries"_a, "stop"_a.none());
  module.def("union_rows", &union_rows, "blocks"_a, "packed"_a);
  module.def(
      "postings_end",
      [](nb::bytes postings) {
        const Bytes given = view(postings.ptr());
        if (given.size % kPostingBytes) throw nb::value_error("postings of six bytes each");
        return postings_end(given.data, given.size / kPostingBytes);
      },
      "postings"_a);
  module.def(
      "add_scores",
      [](nb::bytes postings, Norm norm, float weight, Floats scores) {
        const Bytes given = view(postings.ptr());
        const size_t count = checked(given, scores.shape(0));
        add_scores(given.data, count, norm.data(), weight, scores.data());
      },
      "postings"_a, "norm"_a.noconvert(), "weight"_a, "scores"_a.noconvert());
  module.def(
      "clear_scores",
      [](nb::bytes postings, Floats scores) {
        const Bytes given = view(postings.ptr());
        const size_t count = checked(given, scores.shape(0));
        clear_scores(given.data, count, scores.data());
      },
      "postings"_a, "scores"_a.noconvert());
}

}  // namespace memdb_storage
