// Bindings of memdb.index._native. Every array is C-contiguous; outputs are the caller's arrays.
// Shapes are checked here, so that a wrong call from Python is a ValueError and never a crash.
// No array is converted: a copy of an output would take the answer with it. The GIL is released
// while a kernel runs.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "bindings.h"
#include "codes.h"
#include "kernels.h"
#include "rotation.h"
#include "score.h"
#include "search.h"

namespace nb = nanobind;
using namespace memdb;

namespace {

std::vector<std::string> available() {
  std::vector<std::string> names;
  for (uint32_t level = 0; const Kernels* kernels = kernels_at(level); ++level)
    names.emplace_back(kernels->name);
  return names;
}

void rotate_all(Array<float, 2> x, In<float, 2> signs, bool back) {
  const uint32_t dim = static_cast<uint32_t>(x.shape(1));
  require(dim >= 1 && signs.shape(0) == kRotationRounds && signs.shape(1) == dim,
          "signs: (4, dim)");
  float* rows = x.data();
  nb::gil_scoped_release release;
  for (size_t i = 0; i < x.shape(0); ++i)
    (back ? rotate_back : rotate)(rows + i * dim, signs.data(), dim);
}

void quantise8_all(In<float, 2> x, Array<int8_t, 2> payload, Array<float, 1> scales) {
  const uint32_t dim = static_cast<uint32_t>(x.shape(1));
  require(payload.shape(0) == x.shape(0) && payload.shape(1) == dim, "payload: (n, dim)");
  require(scales.shape(0) == x.shape(0), "scales: (n,)");
  int8_t* out = payload.data();
  float* scale = scales.data();
  nb::gil_scoped_release release;
  for (size_t i = 0; i < x.shape(0); ++i)
    scale[i] = quantise8(x.data() + i * dim, dim, out + i * dim);
}

void sign_codes(In<float, 2> residuals, Array<uint64_t, 2> codes) {
  const uint32_t dim = static_cast<uint32_t>(residuals.shape(1)), words = words_of(dim);
  require(codes.shape(0) == residuals.shape(0) && codes.shape(1) == words, "codes: (n, words)");
  uint64_t* out = codes.data();
  nb::gil_scoped_release release;
  for (size_t i = 0; i < residuals.shape(0); ++i)
    sign_code(residuals.data() + i * dim, dim, words, out + i * words);
}

void query_tables_all(In<float, 2> queries, Array<uint8_t, 3> entries, Array<float, 1> bases,
                      Array<float, 1> steps) {
  const uint32_t dim = static_cast<uint32_t>(queries.shape(1)), bytes = 8 * words_of(dim);
  require(entries.shape(0) == queries.shape(0) && entries.shape(1) == 2 * bytes &&
              entries.shape(2) == kTableEntries && bases.shape(0) == queries.shape(0) &&
              steps.shape(0) == queries.shape(0),
          "entries: (n, 2 * bytes, 16), bases, steps: (n,)");
  for (size_t i = 0; i < queries.shape(0); ++i) {
    const QueryTables tables =
        query_tables(queries.data() + i * dim, dim, bytes,
                     entries.data() + i * 2 * bytes * kTableEntries);
    bases.data()[i] = tables.base;
    steps.data()[i] = tables.step;
  }
}

void quantise_packed_all(uint32_t precision, In<float, 2> x, Array<uint8_t, 2> payload,
                         Array<float, 1> scales, Array<float, 1> norms) {
  const uint32_t dim = static_cast<uint32_t>(x.shape(1));
  const Precision target = precision_of(precision);
  const uint64_t size = payload_bytes(dim, target);
  require(is_packed(target) && payload.shape(0) == x.shape(0) && payload.shape(1) == size,
          "payload: (n, bytes)");
  require(scales.shape(0) == x.shape(0) && norms.shape(0) == x.shape(0), "scales, norms: (n,)");
  nb::gil_scoped_release release;
  for (size_t i = 0; i < x.shape(0); ++i) {
    const Fit fit = quantise_packed(x.data() + i * dim, dim, bits_of(target),
                                    payload.data() + i * size);
    scales.data()[i] = fit.scale;
    norms.data()[i] = fit.norm;
  }
}

void seal(uint32_t level, Array<uint8_t, 2> records, In<uint32_t, 1> slots) {
  const Kernels& kernels = table(level);
  const uint64_t size = records.shape(1);
  require(size > kRecordHead + kRecordTail && slots.shape(0) == records.shape(0),
          "records: (n, bytes), slots: (n,)");
  uint8_t* first = records.data();
  nb::gil_scoped_release release;
  for (size_t i = 0; i < slots.shape(0); ++i)
    seal_record(kernels, first + i * size, size, slots.data()[i]);
}

// The place in `slots` of the first damaged record, or -1.
int64_t check(uint32_t level, In<uint8_t, 2> records, In<uint32_t, 1> slots) {
  const Kernels& kernels = table(level);
  const uint64_t size = records.shape(1);
  require(size > kRecordHead + kRecordTail && slots.shape(0) == records.shape(0),
          "records: (n, bytes), slots: (n,)");
  nb::gil_scoped_release release;
  for (size_t i = 0; i < slots.shape(0); ++i)
    if (!record_holds(kernels, records.data() + i * size, size, slots.data()[i]))
      return static_cast<int64_t>(i);
  return -1;
}

Codes codes_of(In<uint8_t, 1> groups, uint32_t dim, uint64_t allowed_bytes) {
  const uint32_t bytes = 8 * words_of(dim);
  const uint64_t count = groups.shape(0) / group_bytes(bytes);
  require(reinterpret_cast<uintptr_t>(groups.data()) % 4 == 0, "codes: aligned to 4 bytes");
  require(allowed_bytes <= count * (kGroupRows / 8), "allowed: within the codes");
  return {groups.data(), count, bytes};
}

// Fills keys and slots with the shortlist, unordered; returns how many.
uint64_t scan(uint32_t level, In<uint8_t, 1> groups, uint32_t dim, In<uint8_t, 2> entries,
              float base, float step, In<uint8_t, 1> allowed, Array<uint32_t, 1> slots,
              Array<float, 1> keys) {
  const Kernels& kernels = table(level);
  const Codes codes = codes_of(groups, dim, allowed.shape(0));
  require(entries.shape(0) == 2 * codes.bytes && entries.shape(1) == kTableEntries,
          "entries: (2 * bytes, 16)");
  for (size_t i = 0; i < entries.size(); ++i)
    require(entries.data()[i] <= kTableMax, "entries: at most 63");
  require(slots.shape(0) >= 1 && slots.shape(0) == keys.shape(0), "slots, keys: (keep,)");
  const QueryTables query = {entries.data(), codes.bytes, base, step};
  std::vector<Candidate> found;
  {
    nb::gil_scoped_release release;
    shortlist(kernels, codes, query, {allowed.data(), allowed.shape(0)},
              static_cast<uint32_t>(slots.shape(0)), found);
  }
  for (size_t i = 0; i < found.size(); ++i) {
    slots.data()[i] = found[i].slot;
    keys.data()[i] = found[i].key;
  }
  return found.size();
}

int64_t rescore_slots(uint32_t level, In<uint8_t, 2> records, uint32_t dim, uint32_t metric,
                      uint32_t precision, In<float, 1> query, In<uint32_t, 1> slots,
                      Array<float, 1> distances) {
  const Kernels& kernels = table(level);
  const Records view = records_of(records, dim, metric, precision);
  require(query.shape(0) == dim && distances.shape(0) == slots.shape(0), "query, distances");
  float* out = distances.data();
  nb::gil_scoped_release release;
  Scorer scorer(kernels, view, query.data());
  return rescore(kernels, view, scorer, slots.data(), slots.shape(0), out);
}

void score(uint32_t level, uint32_t metric, In<float, 2> queries, In<float, 2> rows,
           Array<float, 2> distances) {
  const Kernels& kernels = table(level);
  const uint32_t dim = static_cast<uint32_t>(rows.shape(1));
  require(metric < kMetrics && queries.shape(1) == dim,
          "metric, queries: (q, dim), rows: (n, dim)");
  require(distances.shape(0) == queries.shape(0) && distances.shape(1) == rows.shape(0),
          "distances: (q, n)");
  float* out = distances.data();
  nb::gil_scoped_release release;
  for (size_t i = 0; i < queries.shape(0); ++i)
    score_rows(kernels, static_cast<Metric>(metric), queries.data() + i * dim, rows.data(),
               rows.shape(0), dim, out + i * rows.shape(0));
}

int64_t search_batch(uint32_t level, bool use_codes, bool rough, In<uint8_t, 1> groups,
                     In<uint8_t, 2> records, uint32_t metric, uint32_t precision,
                     In<float, 2> queries, In<float, 2> signs, In<float, 1> centre,
                     In<uint8_t, 1> allowed, uint32_t keep, uint32_t threads,
                     Array<uint32_t, 2> slots, Array<float, 2> distances) {
  const Kernels& kernels = table(level);
  const uint32_t dim = static_cast<uint32_t>(queries.shape(1));
  const Records view = records_of(records, dim, metric, precision);
  require(signs.shape(0) == kRotationRounds && signs.shape(1) == dim, "signs: (4, dim)");
  require(slots.shape(0) == queries.shape(0) && distances.shape(0) == queries.shape(0) &&
              slots.shape(1) == distances.shape(1),
          "slots, distances: (q, k)");
  const uint32_t k = static_cast<uint32_t>(slots.shape(1));
  require(k >= 1 && keep >= k && threads >= 1, "keep >= k >= 1, threads >= 1");
  uint64_t permitted = 0;
  for (size_t i = 0; i < allowed.shape(0) && permitted < k; ++i)
    for (uint32_t byte = allowed.data()[i]; byte; byte &= byte - 1) ++permitted;
  require(permitted >= k, "k: at most the number of allowed slots");
  Codes codes = {};
  if (use_codes) {
    codes = codes_of(groups, dim, allowed.shape(0));
    require(centre.shape(0) == dim, "centre: (dim,)");
  }
  const SearchRequest request = {use_codes ? &codes : nullptr,
                                 &view,
                                 rough,
                                 queries.data(),
                                 signs.data(),
                                 centre.data(),
                                 {allowed.data(), allowed.shape(0)},
                                 static_cast<uint32_t>(queries.shape(0)),
                                 k,
                                 keep,
                                 threads,
                                 slots.data(),
                                 distances.data()};
  nb::gil_scoped_release release;
  return search(kernels, request);
}

}  // namespace

NB_MODULE(_native, module) {
  using namespace nb::literals;
  const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
  module.def("available", &available);
  module.def("rotate", &rotate_all, array("x"), array("signs"), "back"_a);
  module.def("quantise8", &quantise8_all, array("x"), array("payload"), array("scales"));
  module.def("sign_codes", &sign_codes, array("residuals"), array("codes"));
  module.def("query_tables", &query_tables_all, array("queries"), array("entries"),
             array("bases"), array("steps"));
  module.def("quantise_packed", &quantise_packed_all, "precision"_a, array("x"), array("payload"),
             array("scales"), array("norms"));
  module.def("seal", &seal, "level"_a, array("records"), array("slots"));
  module.def("check", &check, "level"_a, array("records"), array("slots"));
  module.def("scan", &scan, "level"_a, array("groups"), "dim"_a, array("entries"), "base"_a,
             "step"_a, array("allowed"), array("slots"), array("keys"));
  module.def("rescore", &rescore_slots, "level"_a, array("records"), "dim"_a, "metric"_a,
             "precision"_a, array("query"), array("slots"), array("distances"));
  module.def("score", &score, "level"_a, "metric"_a, array("queries"), array("rows"),
             array("distances"));
  module.def("search", &search_batch, "level"_a, "use_codes"_a, "rough"_a, array("groups"),
             array("records"), "metric"_a, "precision"_a, array("queries"), array("signs"),
             array("centre"), array("allowed"), "keep"_a, "threads"_a, array("slots"),
             array("distances"));
  bind_graph(module);
  bind_reads(module);
  bind_live_graph(module);
}
