// Distances of a query to records and to plain vectors.
#pragma once
#include <cstdint>
#include <vector>

#include "codes.h"
#include "kernels.h"

namespace memdb {

enum class Metric : uint32_t { kCosine = 0, kInnerProduct = 1, kSquaredL2 = 2, kHamming = 3 };
constexpr uint32_t kMetrics = 4;

struct Records {
  const uint8_t* first;  // record of slot 0
  uint64_t count;
  uint64_t size;  // bytes of one record
  uint32_t dim;
  Metric metric;
  Precision precision;
};

// Distances of one query. The query is as given for kFloat16, zeros and ones for kBits, rotated
// for all others, and of unit length for kCosine. It must outlive the scorer.
class Scorer {
 public:
  Scorer(const Kernels& kernels, const Records& records, const float* query);

  // From the record as it is; whether that is sound is the caller's question.
  float distance(const uint8_t* record);

  // The same, or a cheaper estimate of it where the precision has one.
  float rough(const uint8_t* record);

 private:
  float from_product(const uint8_t* record, float product) const;

  const Kernels& kernels_;
  const Records& records_;
  const float* query_;
  float square_;                  // |query|^2
  float step_ = 0.0f;             // of the query's levels in `strips_`
  float sum_ = 0.0f;              // of the query's levels
  std::vector<int8_t> numbers_;   // of the record that is looked at
  std::vector<int8_t> strips_;    // kInt2: the query in 8 bits, coordinates 4 i + s in strip s
  std::vector<uint8_t> bits_;     // kBits: the query
  std::vector<int16_t> sums_;     // kInt1: at 256 b + v, the levels whose bits byte b = v sets
};

constexpr int64_t kAllGood = -1;

// Distances of listed slots into `out`; returns the first slot whose record is missing or damaged.
int64_t rescore(const Kernels& kernels, const Records& records, Scorer& scorer,
                const uint32_t* slots, uint64_t count, float* out);

// Distances of one query to (count, dim) float32 rows. What leaves the comfort of float32 is summed
// in double precision, so that a vector's length does not matter to a cosine.
void score_rows(const Kernels& kernels, Metric metric, const float* query, const float* rows,
                uint64_t count, uint32_t dim, float* out);

}  // namespace memdb
