// What the files of bindings share: array types, and the checks both make of what Python passes.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

#include "graph.h"
#include "graph_walk.h"
#include "kernels.h"
#include "rotation.h"
#include "score.h"

template <class T, int N>
using Array =
    nanobind::ndarray<T, nanobind::ndim<N>, nanobind::c_contig, nanobind::device::cpu>;
template <class T, int N>
using In = Array<const T, N>;

inline void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

inline const memdb::Kernels& table(uint32_t level) {
  const memdb::Kernels* kernels = memdb::kernels_at(level);
  require(kernels != nullptr, "no kernels at this level");
  return *kernels;
}

inline uint32_t words_of(uint32_t dim) { return (dim + 63) / 64; }

inline memdb::Precision precision_of(uint32_t number) {
  require(number < memdb::kPrecisions, "precision");
  return static_cast<memdb::Precision>(number);
}

inline memdb::Records records_of(In<uint8_t, 2> records, uint32_t dim, uint32_t metric,
                                 uint32_t precision) {
  const memdb::Precision stored = precision_of(precision);
  require(metric < memdb::kMetrics && dim >= 1, "metric, dim");
  require((static_cast<memdb::Metric>(metric) == memdb::Metric::kHamming) ==
              (stored == memdb::Precision::kBits),
          "metric: hamming with bits, and only there");
  require(records.shape(1) ==
              memdb::kRecordHead + memdb::payload_bytes(dim, stored) + memdb::kRecordTail,
          "records: (n, bytes)");
  return {records.data(), records.shape(0), records.shape(1),
          dim,            static_cast<memdb::Metric>(metric), stored};
}

inline memdb::RowCodes rows_of(In<uint8_t, 1> groups, uint32_t dim) {
  const uint32_t bytes = 8 * words_of(dim);
  require(dim >= 1 && groups.shape(0) % (bytes + 4) == 0, "rows: whole rows");
  return {groups.data(), groups.shape(0) / (bytes + 4), dim, bytes};
}

inline memdb::Entries entries_of(In<uint32_t, 1> slots, In<uint8_t, 2> rows,
                                 const memdb::RowCodes& codes) {
  require(rows.shape(0) == slots.shape(0) && rows.shape(1) == codes.stride(),
          "entries: (n,) slots and (n, stride) rows");
  return {slots.data(), rows.data(), static_cast<uint32_t>(slots.shape(0))};
}

inline void check_beside(const memdb::GraphRequest& request) {
  require(request.beside_count == 0 || request.beside_keep >= 1, "beside_keep: at least 1");
  for (uint64_t i = 0; i < request.beside_count; ++i)
    require(request.beside[i] < request.codes->count, "beside: within the rows");
}

void bind_graph(nanobind::module_& module);
void bind_reads(nanobind::module_& module);
void bind_live_graph(nanobind::module_& module);
