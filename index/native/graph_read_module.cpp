// Bindings of files that are read and not mapped; the rules of module.cpp hold here too.
// A read that fails is Python's OSError with the file's name.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <cerrno>
#include <stdexcept>

#include "bindings.h"
#include "graph.h"
#include "graph_read.h"

namespace nb = nanobind;
using namespace memdb;

namespace {

Records records_shape(uint32_t dim, uint32_t metric, uint32_t precision) {
  const Precision stored = precision_of(precision);
  require(metric < kMetrics && dim >= 1 && stored != Precision::kBits, "metric, dim, precision");
  return {nullptr, 0, kRecordHead + payload_bytes(dim, stored) + kRecordTail, dim,
          static_cast<Metric>(metric), stored};
}

// Each walk is of one of `queries`; `counted` are hops, estimates, records scored.
int64_t graph_search_read(uint32_t level, const FileReader& page_file, PageCache& cache,
                          const FileReader& record_file, ReadPool& pool, uint32_t depth,
                          Array<uint8_t, 1> checked, uint32_t degree, In<uint32_t, 1> places,
                          In<uint32_t, 1> entries, In<uint8_t, 2> entry_rows,
                          In<uint8_t, 1> groups, uint32_t metric, uint32_t precision,
                          In<float, 2> queries, In<float, 2> signs, In<float, 1> centre,
                          bool inside, In<uint8_t, 1> allowed, uint32_t breadth,
                          uint64_t most_hops, uint32_t threads, Array<uint32_t, 2> slots,
                          Array<float, 2> distances, Array<uint32_t, 1> found,
                          Array<uint64_t, 1> counted,
                          In<uint32_t, 1> beside, uint32_t beside_keep) {
  const Kernels& kernels = table(level);
  const uint32_t dim = static_cast<uint32_t>(queries.shape(1));
  const Records view = records_shape(dim, metric, precision);
  const RowCodes codes = rows_of(groups, dim);
  require(depth >= 1 && depth <= kMostDepth, "depth: 1 ... 32");
  require(degree >= 1 && degree <= kMostDegree, "degree: 1 ... 64");
  require(signs.shape(0) == kRotationRounds && signs.shape(1) == dim && centre.shape(0) == dim,
          "signs: (4, dim), centre: (dim,)");
  require(slots.shape(0) == queries.shape(0) && distances.shape(0) == queries.shape(0) &&
              slots.shape(1) == distances.shape(1) && found.shape(0) == queries.shape(0) &&
              counted.shape(0) == 3,
          "slots, distances: (q, k), found: (q,), counted: (3,)");
  const uint32_t k = static_cast<uint32_t>(slots.shape(1));
  require(k >= 1 && breadth >= k && threads >= 1, "breadth >= k >= 1, threads >= 1");
  const GraphPages graph = {nullptr, checked.shape(0), degree, places.data(), places.shape(0),
                            reinterpret_cast<std::atomic<uint8_t>*>(checked.data())};
  const GraphRequest request = {
      &graph, &codes, &view, entries_of(entries, entry_rows, codes), queries.data(),
      signs.data(), centre.data(), {allowed.data(), allowed.shape(0)}, inside,
      static_cast<uint32_t>(queries.shape(0)), k, breadth, most_hops, threads, slots.data(),
      distances.data(), found.data(), counted.data(), beside.data(), beside.shape(0), beside_keep};
  check_beside(request);
  nb::gil_scoped_release release;
  const bool several = depth > 1;  // with one, what a mapped search finds is found, to the bit
  return search_graph_read(kernels, request, {&page_file, &cache, &record_file, &pool, depth,
                                              several, several ? 2.0f / 3.0f : 1.0f});
}

int64_t gather_read(uint32_t level, const FileReader& record_file, ReadPool& pool,
                    In<uint8_t, 1> groups, uint32_t metric, uint32_t precision,
                    In<float, 2> queries, In<float, 2> signs, In<float, 1> centre,
                    In<uint32_t, 1> listed, uint32_t keep, uint32_t threads,
                    Array<uint32_t, 2> slots, Array<float, 2> distances) {
  const Kernels& kernels = table(level);
  const uint32_t dim = static_cast<uint32_t>(queries.shape(1));
  const Records view = records_shape(dim, metric, precision);
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
  return gather_rows_read(kernels, request, {nullptr, nullptr, &record_file, &pool, 1});
}

int64_t rescore_all(uint32_t level, const FileReader& record_file, ReadPool& pool, uint32_t metric,
                    uint32_t precision, In<float, 1> query, In<uint32_t, 1> slots,
                    Array<float, 1> distances) {
  const Kernels& kernels = table(level);
  const Records view = records_shape(static_cast<uint32_t>(query.shape(0)), metric, precision);
  require(distances.shape(0) == slots.shape(0), "slots, distances: (n,)");
  nb::gil_scoped_release release;
  return rescore_read(kernels, view, query.data(), slots.data(), slots.shape(0), distances.data(),
                      {nullptr, nullptr, &record_file, &pool, 1});
}

void drop_pages(PageCache& cache, In<uint32_t, 1> pages) {
  cache.drop(pages.data(), pages.shape(0));
}

}  // namespace

void bind_reads(nb::module_& module) {
  using namespace nb::literals;
  const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
  nb::register_exception_translator([](const std::exception_ptr& failure, void*) {
    try {
      std::rethrow_exception(failure);
    } catch (const ReadError& error) {
      errno = error.number;
      PyErr_SetFromErrnoWithFilename(PyExc_OSError, error.path.c_str());
    }
  });
  nb::class_<ReadPool>(module, "ReadPool")
      .def(nb::init<uint32_t, bool>(), "most"_a, "rings"_a)
      .def_prop_ro("has_rings", &ReadPool::has_rings);
  nb::class_<FileReader>(module, "FileReader")
      .def(nb::init<int, uint64_t, const std::string&, bool>(), "descriptor"_a, "body_offset"_a,
           "path"_a, "direct"_a)
      .def_prop_ro("reads", &FileReader::reads)
      .def_prop_ro("bytes", &FileReader::bytes)
      .def_prop_ro("waited", &FileReader::waited);
  nb::class_<PageCache>(module, "PageCache")
      .def(nb::init<uint32_t, uint64_t>(), "page_bytes"_a, "most_bytes"_a)
      .def("drop", &drop_pages, array("pages"))
      .def("clear", &PageCache::clear)
      .def_prop_ro("bytes", &PageCache::bytes)
      .def_prop_ro("most_bytes", &PageCache::most_bytes)
      .def_prop_ro("hits", &PageCache::hits)
      .def_prop_ro("misses", &PageCache::misses);
  module.def("graph_search_read", &graph_search_read, "level"_a, "pages"_a, "cache"_a,
             "records"_a, "pool"_a, "depth"_a, array("checked"), "degree"_a, array("places"),
             array("entries"), array("entry_rows"), array("groups"), "metric"_a, "precision"_a,
             array("queries"), array("signs"), array("centre"), "inside"_a, array("allowed"),
             "breadth"_a, "most_hops"_a, "threads"_a, array("slots"), array("distances"),
             array("found"), array("counted"),
             array("beside"), "beside_keep"_a);
  module.def("gather_read", &gather_read, "level"_a, "records"_a, "pool"_a, array("groups"),
             "metric"_a, "precision"_a, array("queries"), array("signs"), array("centre"),
             array("listed"), "keep"_a, "threads"_a, array("slots"), array("distances"));
  module.def("rescore_read", &rescore_all, "level"_a, "records"_a, "pool"_a, "metric"_a,
             "precision"_a, array("query"), array("slots"), array("distances"));
}
