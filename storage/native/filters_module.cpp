// Bindings of what files rows in the filter tables: a batch at a time, through LMDB's own cursors.
#include <algorithm>

#include "objects.h"
#include "row_sets.h"
#include "sorted_runs.h"

namespace memdb_storage {
namespace {

// py-lmdb's cursor: what its Python methods give.
class Cursor {
 public:
  explicit Cursor(nb::handle cursor)
      : set_range_(cursor.attr("set_range")), previous_(cursor.attr("prev")),
        next_(cursor.attr("next")), last_(cursor.attr("last")), key_(cursor.attr("key")),
        value_(cursor.attr("value")) {}

  bool set_range(PyObject* key) { return truth(set_range_(nb::handle(key))); }
  bool previous() { return truth(previous_()); }
  bool next() { return truth(next_()); }
  bool last() { return truth(last_()); }
  nb::object key() { return key_(); }
  nb::object value() { return value_(); }

 private:
  static bool truth(const nb::object& answer) { return answer.ptr() == Py_True; }

  nb::object set_range_, previous_, next_, last_, key_, value_;
};

bool starts_alike(Bytes a, Bytes b, size_t count) {
  return std::min(a.size, count) == std::min(b.size, count) &&
         std::equal(a.data, a.data + std::min(a.size, count), b.data);
}

bool equal(Bytes a, Bytes b) {
  return a.size == b.size && std::equal(a.data, a.data + a.size, b.data);
}

// The entry at or before a key, if their first bytes are the same, and the key that follows it.
struct Floor {
  bool found = false;
  nb::object key, value, following;

  nb::object payload() const {
    const Bytes content = payload_of(view(key.ptr()), view(value.ptr()));
    return new_bytes(content.data, content.size);
  }
};

Floor floor_of(Cursor* cursor, PyObject* wanted, size_t shared) {
  Floor floor;
  const Bytes key = view(wanted);
  bool back;
  if (cursor->set_range(wanted)) {
    floor.following = cursor->key();
    if (equal(view(floor.following.ptr()), key)) {
      floor.found = true;
      floor.key = nb::borrow(wanted);
      floor.value = cursor->value();
      floor.following = cursor->next() ? cursor->key() : new_bytes(0);
      return floor;
    }
    back = cursor->previous();
  } else {
    floor.following = new_bytes(0);
    back = cursor->last();
  }
  if (!back) return floor;
  floor.key = cursor->key();
  floor.found = starts_alike(view(floor.key.ptr()), key, shared);
  if (floor.found) floor.value = cursor->value();
  return floor;
}

// --- sets of rows --------------------------------------------------------------------------------

Rows rows_of(PyObject* given) {
  const Items items(given);
  Rows rows(items.size);
  for (size_t i = 0; i < items.size; ++i) rows[i] = u32_of(items[i]);
  if (!std::is_sorted(rows.begin(), rows.end())) std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  if (rows.empty()) throw nb::value_error("a set gets at least one row");
  return rows;
}

nb::list list_of(const Rows& rows) {
  nb::list made;
  for (const uint32_t row : rows) made.append(new_int(row));
  return made;
}

nb::object block_key(Bytes prefix, uint32_t first) {
  nb::object key = new_bytes(prefix.size + 4);
  uint8_t* to = std::copy(prefix.data, prefix.data + prefix.size, bytes_of(key));
  for (int shift = 24; shift >= 0; shift -= 8) *to++ = static_cast<uint8_t>(first >> shift);
  return key;
}

uint32_t first_row(Bytes key) {
  uint32_t first = 0;
  for (size_t i = key.size - 4; i < key.size; ++i) first = first << 8 | key.data[i];
  return first;
}

// What one set becomes: `before` and, where it has to be written, (key, payload).
class Extension {
 public:
  nb::object before = nb::none();
  nb::object piece;
  bool cut = false;  // more than one block: for the caller

  Extension(Bytes prefix, const Rows& rows, const Floor& found) {
    if (!found.found) {
      before = nb::list();
      whole(prefix, rows);
      return;
    }
    const Bytes key = view(found.key.ptr()), following = view(found.following.ptr());
    if (key.size < 4) corrupt("a set of rows has an impossible key");
    const Bytes payload = payload_of(key, view(found.value.ptr()));
    Rows held;
    if (inline_rows(payload, &held)) {
      before = list_of(held);
      Rows all;
      std::set_union(held.begin(), held.end(), rows.begin(), rows.end(), std::back_inserter(all));
      if (all.size() > held.size()) whole(prefix, all);
      return;
    }
    const bool bounded = following.size >= 4 && following.size == prefix.size + 4 &&
                         starts_alike(following, prefix, prefix.size);
    Payload made;
    cut = (bounded && first_row(following) <= rows.back()) ||
          !extended_block(payload, first_row(key), rows, &made);
    if (!cut) piece = new_tuple({found.key, new_bytes(made.data(), made.size())});
  }

 private:
  void whole(Bytes prefix, const Rows& rows) {
    Payload made;
    cut = !new_block(rows, &made);
    if (!cut) piece = new_tuple({block_key(prefix, 0), new_bytes(made.data(), made.size())});
  }
};

nb::tuple extend_sets(nb::handle cursor, nb::list sets) {
  Cursor at(cursor);
  const Items given(sets.ptr());
  nb::list before, pieces, cut;
  for (size_t i = 0; i < given.size; ++i) {
    const Pair pair(given[i]);
    const Bytes prefix = view(pair.first);
    const Rows rows = rows_of(pair.second);
    const nb::object wanted = block_key(prefix, rows.front());
    const Extension made(prefix, rows, floor_of(&at, wanted.ptr(), prefix.size));
    before.append(made.before);
    if (made.cut) cut.append(i);
    if (made.piece.is_valid()) pieces.append(made.piece);
  }
  return nb::make_tuple(before, pieces, cut);
}

// --- entries in order ----------------------------------------------------------------------------

// Distinct entries in order, whatever order they are given in.
std::vector<Entry> entries_of(nb::list given) {
  const Items items(given.ptr());
  std::vector<Entry> entries(items.size);
  for (size_t i = 0; i < items.size; ++i) {
    const Pair pair(items[i]);
    entries[i] = {u64_of(pair.first), u32_of(pair.second)};
  }
  if (!std::is_sorted(entries.begin(), entries.end())) std::sort(entries.begin(), entries.end());
  entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
  return entries;
}

void put_big_endian(uint8_t* out, uint64_t number, int bytes) {
  for (int i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>(number >> 8 * (bytes - 1 - i));
}

constexpr size_t kEntryKeyBytes = 14;

void put_entry_key(uint8_t* out, uint32_t field, const Entry& first) {
  put_big_endian(out, field, 2);
  put_big_endian(out + 2, first.key, 8);
  put_big_endian(out + 10, first.row, 4);
}

nb::object entry_key(uint32_t field, const Entry& first) {
  nb::object key = new_bytes(kEntryKeyBytes);
  put_entry_key(bytes_of(key), field, first);
  return key;
}

// Whether the key that a block beginning with the entry would have comes before another.
bool precedes(uint32_t field, const Entry& entry, Bytes key) {
  uint8_t name[kEntryKeyBytes];
  put_entry_key(name, field, entry);
  return std::lexicographical_compare(name, name + kEntryKeyBytes, key.data, key.data + key.size);
}

nb::tuple blocks_for(nb::handle cursor, uint32_t field, nb::list entries) {
  Cursor at(cursor);
  const std::vector<Entry> wanted = entries_of(entries);
  nb::list blocks, bounds;
  bounds.append(0);
  for (size_t place = 0; place < wanted.size();) {
    const nb::object name = entry_key(field, wanted[place]);
    Floor floor = floor_of(&at, name.ptr(), 2);
    if (!floor.found) {
      const nb::object first = floor.following;
      if (!starts_alike(view(first.ptr()), view(name.ptr()), 2))
        return nb::make_tuple(nb::list(), nb::list());
      floor = floor_of(&at, first.ptr(), 2);
    }
    blocks.append(new_tuple({floor.key, floor.payload()}));
    const Bytes following = view(floor.following.ptr());
    ++place;
    while (place < wanted.size() && (!following.size || precedes(field, wanted[place], following)))
      ++place;
    bounds.append(place);
  }
  return nb::make_tuple(blocks, bounds);
}

// Blocks of `full` entries where they came at the end, of even sizes where they came between.
void cut_entries(uint32_t field, const Merged& merged, size_t full, nb::list* pairs) {
  const size_t count = merged.entries.size(), pieces = (count + full - 1) / full;
  const size_t size = merged.appended ? full : (count + pieces - 1) / pieces;
  for (size_t at = 0; at < count; at += size) {
    const size_t taken = std::min(size, count - at);
    nb::object payload = new_bytes(taken * kEntryBytes);
    write_entries(&merged.entries[at], taken, bytes_of(payload));
    pairs->append(new_tuple({entry_key(field, merged.entries[at]), payload}));
  }
}

nb::tuple merge_blocks(uint32_t field, nb::list blocks, nb::list bounds, nb::list entries,
                       size_t full) {
  const Items given(blocks.ptr()), cuts(bounds.ptr());
  const std::vector<Entry> news = entries_of(entries);
  if (full == 0 || (given.size && cuts.size != given.size + 1))
    throw nb::value_error("bounds: one more than blocks");
  nb::list pairs, gone;
  Merged merged;
  if (given.size == 0 && !news.empty()) {
    merge_entries({}, news.data(), news.size(), &merged);
    cut_entries(field, merged, full, &pairs);
  }
  std::vector<Entry> old;
  for (size_t i = 0; i < given.size; ++i) {
    const Pair pair(given[i]);
    const uint64_t start = u64_of(cuts[i]), stop = u64_of(cuts[i + 1]);
    if (start > stop || stop > news.size()) throw nb::value_error("bounds ascend");
    if (!read_entries(view(pair.second), &old))
      corrupt("a block of entries has an impossible length");
    merge_entries(old, news.data() + start, stop - start, &merged);
    if (merged.new_count == 0) continue;
    cut_entries(field, merged, full, &pairs);
    if (!equal(view(pair.first), view(entry_key(field, merged.entries[0]).ptr())))
      gone.append(nb::borrow(pair.first));
  }
  return nb::make_tuple(pairs, gone);
}

nb::list radix_sets(uint32_t field, nb::list shifts, uint32_t first_level, nb::list entries) {
  const std::vector<Entry> given = entries_of(entries);
  const Items levels(shifts.ptr());
  nb::list sets;
  for (size_t level = 0; level < levels.size; ++level) {
    const uint64_t shift = u64_of(levels[level]);
    if (shift < 8 || shift > 63) throw nb::value_error("a bucket has 7 bytes");
    for (size_t at = 0; at < given.size();) {
      const uint64_t bucket = given[at].key >> shift;
      nb::object prefix = new_bytes(10);
      put_big_endian(bytes_of(prefix), field, 2);
      put_big_endian(bytes_of(prefix) + 2, first_level + level, 1);
      put_big_endian(bytes_of(prefix) + 3, bucket, 7);
      nb::list rows;
      for (; at < given.size() && given[at].key >> shift == bucket; ++at)
        rows.append(new_int(given[at].row));
      sets.append(new_tuple({prefix, rows}));
    }
  }
  return sets;
}

// --- texts in order ------------------------------------------------------------------------------

Text text_of(PyObject* pair) {
  const Pair given(pair);
  return {view(given.first), u32_of(given.second)};
}

nb::tuple join_blocks(nb::list blocks, nb::list entries) {
  const Items given(blocks.ptr()), items(entries.ptr());
  std::vector<TextBlock> parts(given.size);
  std::vector<std::vector<uint8_t>> firsts(given.size);
  for (size_t i = 0; i < given.size; ++i) {
    if (!read_texts(view(Pair(given[i]).second), &parts[i]) || parts[i].suffixes.empty())
      corrupt("a block of strings has no known form");
    const Bytes prefix = parts[i].prefix, suffix = parts[i].suffixes[0].text;
    firsts[i].assign(prefix.data, prefix.data + prefix.size);
    firsts[i].insert(firsts[i].end(), suffix.data, suffix.data + suffix.size);
  }
  std::vector<Text> news(items.size);
  for (size_t i = 0; i < items.size; ++i) news[i] = text_of(items[i]);
  const auto begins_by = [&](size_t block, const Text& text) {
    return compare({{firsts[block].data(), firsts[block].size()}, parts[block].suffixes[0].row},
                   text) <= 0;
  };
  nb::list written, left;
  std::vector<uint8_t> made;
  size_t block = 0;
  for (size_t at = 0; at < news.size() && given.size;) {
    while (block + 1 < given.size && begins_by(block + 1, news[at])) ++block;
    size_t stop = at + 1;
    while (stop < news.size() &&
           (block + 1 == given.size || !begins_by(block + 1, news[stop])))
      ++stop;
    if (join_texts(parts[block], &news[at], stop - at, &made))
      written.append(new_tuple({nb::borrow(Pair(given[block]).first),
                                new_bytes(made.data(), made.size())}));
    else
      for (size_t i = at; i < stop; ++i) left.append(nb::borrow(items[i]));
    at = stop;
  }
  if (given.size == 0) left = entries;
  return nb::make_tuple(written, left);
}

nb::object join_block(nb::bytes block, nb::list entries) {
  const Items items(entries.ptr());
  TextBlock parts;
  if (!read_texts(view(block.ptr()), &parts)) corrupt("a block of strings has no known form");
  std::vector<Text> news(items.size);
  for (size_t i = 0; i < items.size; ++i) news[i] = text_of(items[i]);
  std::vector<uint8_t> made;
  if (!join_texts(parts, news.data(), news.size(), &made)) return nb::none();
  return new_bytes(made.data(), made.size());
}

}  // namespace

void bind_filters(nb::module_& module) {
  using namespace nb::literals;
  module.def("blocks_for", &blocks_for, "cursor"_a, "field"_a, "entries"_a);
  module.def("extend_sets", &extend_sets, "cursor"_a, "sets"_a);
  module.def("merge_blocks", &merge_blocks, "field"_a, "blocks"_a, "bounds"_a, "entries"_a,
             "full"_a);
  module.def("radix_sets", &radix_sets, "field"_a, "shifts"_a, "first_level"_a, "entries"_a);
  module.def("join_block", &join_block, "block"_a, "entries"_a);
  module.def("join_blocks", &join_blocks, "blocks"_a, "entries"_a);
}

}  // namespace memdb_storage
