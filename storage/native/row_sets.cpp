// Roaring in portable form (github.com/RoaringBitmap/RoaringFormatSpec), read and written as
// intervals. A block has at most 1,896 bytes, so it has at most some thousand intervals.
#include "row_sets.h"

#include <cstring>

namespace memdb_storage {
namespace {

constexpr uint32_t kCookie = 12346;      // no run containers; the count of containers follows
constexpr uint32_t kRunCookie = 12347;   // the count, less one, is in the upper half
constexpr uint32_t kArrayMax = 4096;     // rows of an array container
constexpr size_t kBitsBytes = 8192;      // of a bitmap container
constexpr size_t kOffsetsFrom = 4;       // containers, where some are runs, for offsets to follow

struct Input {
  Bytes bytes;
  size_t at = 0;
  bool broken = false;

  const uint8_t* take(size_t count) {
    if (count > bytes.size - at) {
      broken = true;
      return nullptr;
    }
    at += count;
    return bytes.data + at - count;
  }
  uint32_t u16() {
    const uint8_t* p = take(2);
    return p ? p[0] | p[1] << 8 : 0;
  }
  uint32_t u32() {
    const uint32_t low = u16();
    return low | u16() << 16;
  }
};

uint32_t u16_at(const uint8_t* p) { return p[0] | p[1] << 8; }

void put_u16(Payload* out, uint32_t number) {
  out->push_back(static_cast<uint8_t>(number));
  out->push_back(static_cast<uint8_t>(number >> 8));
}

void put_u32(Payload* out, uint32_t number) {
  put_u16(out, number & 0xffff);
  put_u16(out, number >> 16);
}

// Add rows that ascend from call to call; adjoining intervals become one.
bool append(std::vector<Interval>* intervals, uint32_t first, uint32_t last) {
  if (last < first) return false;
  if (!intervals->empty()) {
    const uint32_t before = intervals->back().last;
    if (first <= before) return false;
    if (first == before + 1) {
      intervals->back().last = last;
      return true;
    }
  }
  intervals->push_back({first, last});
  return true;
}

bool read_array(Input* in, uint32_t base, uint32_t count, std::vector<Interval>* out) {
  const uint8_t* rows = in->take(2 * count);
  if (rows == nullptr) return false;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t row = base | u16_at(rows + 2 * i);
    if (!append(out, row, row)) return false;
  }
  return true;
}

bool read_runs(Input* in, uint32_t base, std::vector<Interval>* out) {
  const uint32_t count = in->u16();
  const uint8_t* runs = in->take(4 * count);
  if (runs == nullptr) return false;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t start = u16_at(runs + 4 * i), more = u16_at(runs + 4 * i + 2);
    if (start + more > 0xffff || !append(out, base | start, base | (start + more))) return false;
  }
  return true;
}

bool read_bits(Input* in, uint32_t base, std::vector<Interval>* out) {
  const uint8_t* bits = in->take(kBitsBytes);
  if (bits == nullptr) return false;
  for (uint32_t row = 0; row < 8 * kBitsBytes; ++row)
    if (bits[row >> 3] >> (row & 7) & 1) append(out, base | row, base | row);
  return true;
}

// One container's share of the intervals.
struct Container {
  uint32_t key = 0, rows = 0, runs = 0;
  size_t begin = 0, end = 0;  // intervals; those at the ends may reach beyond the container

  size_t run_bytes() const { return 2 + 4 * size_t{runs}; }
  bool as_runs() const {  // as CRoaring chooses
    return run_bytes() < (rows <= kArrayMax ? 2 * size_t{rows} : kBitsBytes);
  }
  size_t bytes() const {
    return as_runs() ? run_bytes() : rows <= kArrayMax ? 2 * size_t{rows} : kBitsBytes;
  }
};

Interval clipped(Interval one, uint32_t key) {
  const uint32_t low = key << 16, high = low | 0xffff;
  return {one.first < low ? 0 : one.first & 0xffff, one.last > high ? 0xffff : one.last & 0xffff};
}

std::vector<Container> containers_of(const std::vector<Interval>& intervals) {
  std::vector<Container> found;
  for (size_t i = 0; i < intervals.size(); ++i)
    for (uint32_t key = intervals[i].first >> 16; key <= intervals[i].last >> 16; ++key) {
      if (found.empty() || found.back().key != key) {
        found.emplace_back();
        found.back().key = key;
        found.back().begin = i;
      }
      Container& one = found.back();
      const Interval part = clipped(intervals[i], key);
      one.rows += part.last - part.first + 1;
      one.runs += 1;
      one.end = i + 1;
    }
  return found;
}

void write_container(const std::vector<Interval>& intervals, const Container& one, Payload* out) {
  if (one.as_runs()) put_u16(out, one.runs);
  for (size_t i = one.begin; i < one.end; ++i) {
    const Interval part = clipped(intervals[i], one.key);
    if (one.as_runs()) {
      put_u16(out, part.first);
      put_u16(out, part.last - part.first);
    } else {
      for (uint32_t row = part.first; row <= part.last; ++row) put_u16(out, row);
    }
  }
}

void merge(const std::vector<Interval>& old, const Rows& rows, std::vector<Interval>* out) {
  size_t at = 0;
  const auto take = [out](uint32_t first, uint32_t last) {
    if (!out->empty() && (first <= out->back().last || first == out->back().last + 1)) {
      if (last > out->back().last) out->back().last = last;
    } else {
      out->push_back({first, last});
    }
  };
  for (const uint32_t row : rows) {
    for (; at < old.size() && old[at].first <= row; ++at) take(old[at].first, old[at].last);
    take(row, row);
  }
  for (; at < old.size(); ++at) take(old[at].first, old[at].last);
}

}  // namespace

bool read_roaring(Bytes portable, std::vector<Interval>* intervals) {
  intervals->clear();
  Input in{portable};
  const uint32_t cookie = in.u32();
  const bool with_runs = (cookie & 0xffff) == kRunCookie;
  if (!with_runs && cookie != kCookie) return false;
  const size_t count = with_runs ? (cookie >> 16) + 1 : in.u32();
  if (in.broken || count > 1 << 16) return false;
  const uint8_t* is_run = with_runs ? in.take((count + 7) / 8) : nullptr;
  const uint8_t* heads = in.take(4 * count);
  if (!with_runs || count >= kOffsetsFrom) in.take(4 * count);
  if (in.broken) return false;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t base = u16_at(heads + 4 * i) << 16, rows = u16_at(heads + 4 * i + 2) + 1;
    const bool runs = with_runs && (is_run[i >> 3] >> (i & 7) & 1);
    if (!(runs ? read_runs(&in, base, intervals)
               : rows <= kArrayMax ? read_array(&in, base, rows, intervals)
                                   : read_bits(&in, base, intervals)))
      return false;
  }
  return in.at == portable.size;
}

bool write_roaring(const std::vector<Interval>& intervals, size_t limit, Payload* out) {
  const std::vector<Container> containers = containers_of(intervals);
  const size_t count = containers.size();
  bool with_runs = false;
  size_t total = 0;
  for (const Container& one : containers) {
    with_runs = with_runs || one.as_runs();
    total += one.bytes();
  }
  const bool offsets = !with_runs || count >= kOffsetsFrom;
  const size_t head = (with_runs ? 4 + (count + 7) / 8 : 8) + (offsets ? 8 : 4) * count;
  if (head + total > limit) return false;
  put_u32(out, with_runs ? kRunCookie | static_cast<uint32_t>(count - 1) << 16 : kCookie);
  if (with_runs) {
    const size_t flags = out->size();
    out->resize(flags + (count + 7) / 8, 0);
    for (size_t i = 0; i < count; ++i)
      if (containers[i].as_runs()) (*out)[flags + (i >> 3)] |= 1 << (i & 7);
  } else {
    put_u32(out, static_cast<uint32_t>(count));
  }
  for (const Container& one : containers) {
    put_u16(out, one.key);
    put_u16(out, one.rows - 1);
  }
  size_t at = head;
  for (size_t i = 0; offsets && i < count; ++i) {
    put_u32(out, static_cast<uint32_t>(at));
    at += containers[i].bytes();
  }
  for (const Container& one : containers) write_container(intervals, one, out);
  return true;
}

bool new_block(const Rows& rows, Payload* block) {
  block->clear();
  if (rows.size() <= kInlineMax) {
    block->push_back('A');
    for (const uint32_t row : rows) put_u32(block, row);
    return true;
  }
  block->push_back('R');
  std::vector<Interval> intervals;
  merge({}, rows, &intervals);
  return write_roaring(intervals, kSmallPayloadMaxBytes - 1, block);
}

bool inline_rows(Bytes block, Rows* rows) {
  rows->clear();
  if (block.size == 0 || block.data[0] != 'A' || block.size % 4 != 1) return false;
  for (size_t at = 1; at < block.size; at += 4)
    rows->push_back(u16_at(block.data + at) | u16_at(block.data + at + 2) << 16);
  return true;
}

bool extended_block(Bytes block, uint32_t first, const Rows& rows, Payload* out) {
  if (block.size == 0 || rows.empty() || rows.front() < first) return false;
  out->assign(block.data, block.data + block.size);
  if (block.data[0] == 'B') {
    const uint32_t reach = rows.back() - first;
    if (reach >= kChunkRows) return false;
    if (out->size() < 2 + (reach >> 3)) out->resize(2 + (reach >> 3), 0);
    for (const uint32_t row : rows) (*out)[1 + ((row - first) >> 3)] |= 1 << (row & 7);
    return true;
  }
  std::vector<Interval> old, merged;
  if (block.data[0] != 'R' || !read_roaring({block.data + 1, block.size - 1}, &old)) return false;
  merge(old, rows, &merged);
  out->resize(1);
  return write_roaring(merged, kSmallPayloadMaxBytes - 1, out);
}

}  // namespace memdb_storage
