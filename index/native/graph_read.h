// Searches by a graph that is not mapped: pages are read, several in flight, through a cache of a
// fixed size, and the records of the list in one batch at the end. What is found is what the mapped
// search finds, where every page is at hand; else a walk looks at a few nodes more.
#pragma once
#include <cstdint>

#include "graph.h"
#include "page_cache.h"
#include "page_io.h"

namespace memdb {

// How many pages of one walk are in flight: at first, and once its front has settled.
constexpr uint32_t kFirstDepth = 4;
constexpr uint32_t kMostDepth = 32;

struct ReadSources {
  const FileReader* pages;
  PageCache* cache;
  const FileReader* records;
  ReadPool* pool;
  uint32_t most_depth;  // 1 ... kMostDepth
  bool whole_pages;  // of a page that had to be fetched every node is estimated: Starling's search
  // Of the doubt of an estimate within which a mapped search scores. A batch is judged by estimates
  // with a standard error added, not by distances, and needs less.
  float doubt = 1.0f;
};

// `graph->first` and `records->first` are not looked at, nor is `records->count`. Marks in
// `checked` what reading shows. Throws ReadError.
int64_t search_graph_read(const Kernels& kernels, const GraphRequest& request,
                          const ReadSources& sources);

// The same as gather_rows.
int64_t gather_rows_read(const Kernels& kernels, const GatherRequest& request,
                         const ReadSources& sources);

// Distances of listed slots into `out`, as `rescore` gives them; neighbours in one read where they
// are listed side by side.
int64_t rescore_read(const Kernels& kernels, const Records& records, const float* query,
                     const uint32_t* slots, uint64_t count, float* out,
                     const ReadSources& sources);

}  // namespace memdb
