// What reading series adds to memdb.storage._native: values put together from their leaves.
#include "objects.h"

#include <stdexcept>
#include <vector>

namespace memdb_storage {
namespace {

// A shape as series_codec stores it: a leaf, a mapping with a key for each shape inside, or a list.
struct Shape {
  enum Kind { kLeaf, kMapping, kList } kind = kLeaf;
  std::vector<nb::object> keys;
  std::vector<Shape> inner;
};

constexpr size_t kMostNested = 64;  // what is stored nests 8 deep

Shape shape_of(PyObject* given, size_t depth) {
  Shape shape;
  if (given == Py_None) return shape;
  if (depth == kMostNested) throw nb::value_error("a shape nests too deep");
  const bool tuple = PyTuple_Check(given);
  if (!(tuple ? PyTuple_Size(given) == 2 : PyList_Check(given) && PyList_Size(given) == 2))
    throw nb::value_error("a shape is a pair");
  PyObject* const outer = tuple ? PyTuple_GetItem(given, 0) : PyList_GetItem(given, 0);
  const Items inner(tuple ? PyTuple_GetItem(given, 1) : PyList_GetItem(given, 1));
  shape.kind = PyList_Check(outer) ? Shape::kMapping : Shape::kList;
  if (shape.kind == Shape::kMapping) {
    const Items keys(outer);
    if (keys.size != inner.size) throw nb::value_error("a mapping has a key for each shape");
    for (size_t i = 0; i < keys.size; ++i) shape.keys.push_back(nb::borrow(keys[i]));
  }
  for (size_t i = 0; i < inner.size; ++i) shape.inner.push_back(shape_of(inner[i], depth + 1));
  return shape;
}

// The leaves, and which of them comes next in the row that is made.
struct Leaves {
  std::vector<Items> columns;
  size_t row = 0, next = 0;
};

nb::object built(const Shape& shape, Leaves* leaves) {
  if (shape.kind == Shape::kLeaf) {
    if (leaves->next == leaves->columns.size())
      throw nb::value_error("a shape has more leaves than are given");
    return nb::borrow(leaves->columns[leaves->next++][leaves->row]);
  }
  if (shape.kind == Shape::kMapping) {
    nb::dict made;
    for (size_t i = 0; i < shape.inner.size(); ++i) {
      const nb::object value = built(shape.inner[i], leaves);
      if (PyDict_SetItem(made.ptr(), shape.keys[i].ptr(), value.ptr()) < 0)
        throw nb::python_error();
    }
    return made;
  }
  nb::list made;
  for (const Shape& inner : shape.inner) made.append(built(inner, leaves));
  return made;
}

nb::list build_rows(nb::object given, nb::list columns) {
  const Shape shape = shape_of(given.ptr(), 0);
  const Items lists(columns.ptr());
  Leaves leaves;
  for (size_t i = 0; i < lists.size; ++i) leaves.columns.emplace_back(lists[i]);
  if (leaves.columns.empty()) throw nb::value_error("a shape has a leaf");
  const size_t count = leaves.columns[0].size;
  for (const Items& column : leaves.columns)
    if (column.size != count) throw nb::value_error("leaves are of one length");
  nb::list found;
  for (leaves.row = 0; leaves.row < count; ++leaves.row) {
    leaves.next = 0;
    found.append(built(shape, &leaves));
    if (leaves.next != leaves.columns.size())
      throw nb::value_error("a shape has fewer leaves than are given");
  }
  return found;
}

}  // namespace

void bind_samples(nb::module_& module) {
  using namespace nb::literals;
  module.def("build_rows", &build_rows, "shape"_a.none(), "leaves"_a);
}

}  // namespace memdb_storage
