// Bindings of the graph's routines: see module.cpp for the rules, which hold here too.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

#include "bindings.h"
#include "graph.h"
#include "graph_build.h"

namespace nb = nanobind;
using namespace memdb;

namespace {

void query_planes_all(In<float, 2> queries, Array<uint64_t, 3> planes, Array<float, 1> steps) {
  const uint32_t dim = static_cast<uint32_t>(queries.shape(1)), words = words_of(dim);
  require(planes.shape(0) == queries.shape(0) && planes.shape(1) == kPlanes &&
              planes.shape(2) == words && steps.shape(0) == queries.shape(0),
          "planes: (n, 5, words), steps: (n,)");
  for (size_t i = 0; i < queries.shape(0); ++i)
    steps.data()[i] = query_planes(queries.data() + i * dim, dim, words,
                                   planes.data() + i * kPlanes * words);
}

// (n,) keys of listed rows for one rotated, centred query.
void estimate_rows(uint32_t level, In<uint8_t, 1> groups, In<float, 1> query,
                   In<uint32_t, 1> slots, Array<float, 1> keys) {
  const Kernels& kernels = table(level);
  const RowCodes codes = rows_of(groups, static_cast<uint32_t>(query.shape(0)));
  require(keys.shape(0) == slots.shape(0), "keys: (n,)");
  Estimator estimator(kernels, codes);
  estimator.prepare(query.data());
  for (size_t i = 0; i < slots.shape(0); ++i) {
    require(slots.data()[i] < codes.count, "slots: within the rows");
    const uint8_t* row = codes.row(slots.data()[i]);
    estimator.keys(&row, 1, keys.data() + i);
  }
}

int32_t dot88_rows(uint32_t level, In<int8_t, 1> a, In<int8_t, 1> b) {
  require(a.shape(0) == b.shape(0), "a, b: (dim,)");
  return table(level).dot88(a.data(), b.data(), static_cast<uint32_t>(a.shape(0)));
}

struct Linking {
  RowCodes codes;
  Rows rows;
  LinkRequest request;
};

// `numbers` (capacity, any) uint8: the int8 numbers of slot s begin at column `offset` of row s.
void graph_link(uint32_t level, bool trim, In<uint8_t, 1> groups, uint32_t dim,
                In<uint8_t, 2> numbers, uint32_t offset, In<float, 2> shapes,
                Array<uint32_t, 2> lists, In<uint32_t, 1> entries, In<uint8_t, 2> entry_rows,
                In<float, 1> centre, In<uint32_t, 1> slots, uint32_t degree, uint32_t breadth,
                float alpha, uint32_t threads) {
  const Kernels& kernels = table(level);
  const RowCodes codes = rows_of(groups, dim);
  require(numbers.shape(1) >= static_cast<uint64_t>(offset) + dim, "numbers: (n, bytes)");
  require(shapes.shape(1) == 4 && centre.shape(0) == dim, "shapes: (n, 4), centre: (dim,)");
  require(lists.shape(1) >= 2, "lists: (n, 1 + room)");
  const uint64_t count = std::min<uint64_t>(
      {codes.count, numbers.shape(0), shapes.shape(0), lists.shape(0)});
  const Rows rows = {reinterpret_cast<const int8_t*>(numbers.data()) + offset, numbers.shape(1),
                     count, dim, reinterpret_cast<const RowShape*>(shapes.data())};
  const uint32_t room = static_cast<uint32_t>(lists.shape(1) - 1);
  require(degree >= 1 && degree <= room && room <= kMostDegree, "degree <= room <= 64");
  require(breadth >= 1 && threads >= 1 && alpha >= 1.0f, "breadth, threads, alpha: at least 1");
  for (size_t i = 0; i < slots.shape(0); ++i)
    require(slots.data()[i] < count, "slots: within codes, numbers, shapes and lists");
  const LinkRequest request = {&codes, &rows, {lists.data(), lists.shape(0), room},
                               entries_of(entries, entry_rows, codes), centre.data(),
                               slots.data(), slots.shape(0), degree, breadth, alpha, threads};
  nb::gil_scoped_release release;
  if (trim)
    trim_lists(kernels, request);
  else
    link_slots(kernels, request);
}

Lists lists_of(In<uint32_t, 2> lists) {
  require(lists.shape(1) >= 2, "lists: (n, 1 + room)");
  return {const_cast<uint32_t*>(lists.data()), lists.shape(0),
          static_cast<uint32_t>(lists.shape(1) - 1)};
}

void graph_reached(In<uint32_t, 2> lists, In<uint32_t, 1> entries, Array<uint8_t, 1> reached) {
  const Lists view = lists_of(lists);
  require(reached.shape(0) == view.count, "reached: (n,)");
  nb::gil_scoped_release release;
  mark_reached(view, {entries.data(), nullptr, static_cast<uint32_t>(entries.shape(0))},
               reached.data());
}

void graph_order(In<uint32_t, 2> lists, In<uint32_t, 1> entries, uint32_t together,
                 Array<uint32_t, 1> slots) {
  const Lists view = lists_of(lists);
  require(together >= 1, "together: at least 1");
  for (uint64_t i = 0; i < slots.shape(0); ++i)
    require(slots.data()[i] < view.count, "slots: within the lists");
  nb::gil_scoped_release release;
  affinity_order(view, {entries.data(), nullptr, static_cast<uint32_t>(entries.shape(0))},
                 together, slots.data(), slots.shape(0));
}

// Marks in `checked` what it finds out about pages; `counted` are hops, estimates, records scored.
int64_t graph_search(uint32_t level, In<uint8_t, 2> pages, Array<uint8_t, 1> checked,
                     uint32_t degree, In<uint32_t, 1> places, In<uint32_t, 1> entries,
                     In<uint8_t, 2> entry_rows, In<uint8_t, 1> groups, In<uint8_t, 2> records,
                     uint32_t metric, uint32_t precision, In<float, 2> queries,
                     In<float, 2> signs, In<float, 1> centre, bool inside,
                     In<uint8_t, 1> allowed, uint32_t breadth, uint64_t most_hops,
                     uint32_t threads, Array<uint32_t, 2> slots, Array<float, 2> distances,
                     Array<uint32_t, 1> found, Array<uint64_t, 1> counted,
                     In<uint32_t, 1> beside, uint32_t beside_keep) {
  const Kernels& kernels = table(level);
  const uint32_t dim = static_cast<uint32_t>(queries.shape(1));
  const Records view = records_of(records, dim, metric, precision);
  const RowCodes codes = rows_of(groups, dim);
  require(pages.shape(1) == kPageBytes && checked.shape(0) == pages.shape(0),
          "pages: (n, 4096), checked: (n,)");
  require(degree >= 1 && degree <= kMostDegree, "degree: 1 ... 64");
  require(signs.shape(0) == kRotationRounds && signs.shape(1) == dim && centre.shape(0) == dim,
          "signs: (4, dim), centre: (dim,)");
  require(slots.shape(0) == queries.shape(0) && distances.shape(0) == queries.shape(0) &&
              slots.shape(1) == distances.shape(1) && found.shape(0) == queries.shape(0) &&
              counted.shape(0) == 3,
          "slots, distances: (q, k), found: (q,), counted: (3,)");
  const uint32_t k = static_cast<uint32_t>(slots.shape(1));
  require(k >= 1 && breadth >= k && threads >= 1, "breadth >= k >= 1, threads >= 1");
  const GraphPages graph = {pages.data(), pages.shape(0), degree, places.data(),
                            places.shape(0),
                            reinterpret_cast<std::atomic<uint8_t>*>(checked.data())};
  const GraphRequest request = {&graph, &codes, &view,
                                entries_of(entries, entry_rows, codes),
                                queries.data(), signs.data(), centre.data(),
                                {allowed.data(), allowed.shape(0)}, inside,
                                static_cast<uint32_t>(queries.shape(0)), k, breadth, most_hops,
                                threads, slots.data(), distances.data(), found.data(),
                                counted.data(), beside.data(), beside.shape(0), beside_keep};
  check_beside(request);
  nb::gil_scoped_release release;
  return search_graph(kernels, request);
}

int64_t gather(uint32_t level, In<uint8_t, 1> groups, In<uint8_t, 2> records, uint32_t metric,
               uint32_t precision, In<float, 2> queries, In<float, 2> signs, In<float, 1> centre,
               In<uint32_t, 1> listed, uint32_t keep, uint32_t threads, Array<uint32_t, 2> slots,
               Array<float, 2> distances) {
  const Kernels& kernels = table(level);
  const uint32_t dim = static_cast<uint32_t>(queries.shape(1));
  const Records view = records_of(records, dim, metric, precision);
  const RowCodes codes = rows_of(groups, dim);
  require(signs.shape(0) == kRotationRounds && signs.shape(1) == dim && centre.shape(0) == dim,
          "signs: (4, dim), centre: (dim,)");
  require(slots.shape(0) == queries.shape(0) && distances.shape(0) == queries.shape(0) &&
              slots.shape(1) == distances.shape(1),
          "slots, distances: (q, k)");
  const uint32_t k = static_cast<uint32_t>(slots.shape(1));
  require(k >= 1 && keep >= k && k <= listed.shape(0) && threads >= 1,
          "keep >= k >= 1, k: at most the listed, threads >= 1");
  for (size_t i = 0; i < listed.shape(0); ++i)
    require(listed.data()[i] < codes.count, "listed: within the rows");
  const GatherRequest request = {&codes, &view, queries.data(), signs.data(), centre.data(),
                                 listed.data(), listed.shape(0),
                                 static_cast<uint32_t>(queries.shape(0)), k, keep, threads,
                                 slots.data(), distances.data()};
  nb::gil_scoped_release release;
  return gather_rows(kernels, request);
}

}  // namespace

void bind_graph(nb::module_& module) {
  using namespace nb::literals;
  const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
  module.def("query_planes", &query_planes_all, array("queries"), array("planes"),
             array("steps"));
  module.def("estimate_rows", &estimate_rows, "level"_a, array("groups"), array("query"),
             array("slots"), array("keys"));
  module.def("dot88", &dot88_rows, "level"_a, array("a"), array("b"));
  module.def("graph_link", &graph_link, "level"_a, "trim"_a, array("groups"), "dim"_a,
             array("numbers"), "offset"_a, array("shapes"), array("lists"), array("entries"),
             array("entry_rows"), array("centre"), array("slots"), "degree"_a, "breadth"_a,
             "alpha"_a, "threads"_a);
  module.def("graph_reached", &graph_reached, array("lists"), array("entries"),
             array("reached"));
  module.def("graph_order", &graph_order, array("lists"), array("entries"), "together"_a,
             array("slots"));
  module.def("graph_search", &graph_search, "level"_a, array("pages"), array("checked"),
             "degree"_a, array("places"), array("entries"), array("entry_rows"), array("groups"),
             array("records"), "metric"_a, "precision"_a, array("queries"), array("signs"),
             array("centre"), "inside"_a, array("allowed"), "breadth"_a, "most_hops"_a,
             "threads"_a, array("slots"), array("distances"), array("found"), array("counted"),
             array("beside"), "beside_keep"_a);
  module.def("gather", &gather, "level"_a, array("groups"), array("records"), "metric"_a,
             "precision"_a, array("queries"), array("signs"), array("centre"), array("listed"),
             "keep"_a, "threads"_a, array("slots"), array("distances"));
}
