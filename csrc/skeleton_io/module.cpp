// The module msclr.data._skeleton_io: used by msclr/data/skeleton/read.py only.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>

#include "clip.h"
#include "mapped_file.h"

namespace py = pybind11;
using skeleton_io::Clip;

namespace {

// An array that owns what was a vector.
template <class T, class Element = T>
py::array array(std::vector<Element>&& values, std::vector<py::ssize_t> shape) {
  auto* kept = new std::vector<Element>(std::move(values));
  py::capsule owner(kept, [](void* p) { delete static_cast<std::vector<Element>*>(p); });
  return py::array(py::dtype::of<T>(), std::move(shape), kept->data(), owner);
}

// (ids, present, xyz, tracking), and with pixels depth and color after them.
py::tuple to_python(Clip&& clip, bool pixels) {
  const py::ssize_t bodies = clip.ids.size(), frames = clip.frames, joints = skeleton_io::kJoints;
  auto present = array<bool>(std::move(clip.present), {bodies, frames});
  auto xyz = array<float>(std::move(clip.xyz), {bodies, frames, joints, 3});
  auto tracking = array<uint8_t>(std::move(clip.tracking), {bodies, frames, joints});
  if (!pixels) return py::make_tuple(clip.ids, present, xyz, tracking);
  auto depth = array<float>(std::move(clip.depth), {bodies, frames, joints, 2});
  auto color = array<float>(std::move(clip.color), {bodies, frames, joints, 2});
  return py::make_tuple(clip.ids, present, xyz, tracking, depth, color);
}

// A clip, or why there is none: text where it is no .skeleton file, else the system's error number.
struct Result {
  Clip clip;
  std::string refusal;
  int error = 0;
};

Result parse_text(std::string_view text, bool pixels, bool simd = true) {
  try {
    return {skeleton_io::parse(text, pixels, simd), "", 0};
  } catch (const skeleton_io::Refused& refused) {
    return {{}, refused.what(), 0};
  }
}

Result read_file(const std::string& path, bool pixels) {
  try {
    return parse_text(skeleton_io::MappedFile(path.c_str()).text(), pixels);
  } catch (const std::system_error& error) {
    return {{}, "", error.code().value()};
  }
}

py::object to_python(Result&& result, bool pixels) {
  if (result.error) return py::int_(result.error);
  if (!result.refusal.empty()) return py::str(result.refusal);
  return to_python(std::move(result.clip), pixels);
}

py::object parse_bytes(const py::bytes& data, bool pixels, bool simd) {
  const std::string_view text = data;
  Result result;
  {
    py::gil_scoped_release others_run;
    result = parse_text(text, pixels, simd);
  }
  return to_python(std::move(result), pixels);
}

py::list read_files(const std::vector<std::string>& paths, bool pixels) {
  std::vector<Result> results;
  {
    py::gil_scoped_release others_run;
    for (const std::string& path : paths) results.push_back(read_file(path, pixels));
  }
  py::list out;
  for (Result& result : results) out.append(to_python(std::move(result), pixels));
  return out;
}

}  // namespace

PYBIND11_MODULE(_skeleton_io, module) {
  module.def("parse", &parse_bytes, py::arg("data"), py::arg("pixels"), py::arg("simd") = true);
  module.def("read", &read_files, py::arg("paths"), py::arg("pixels"));
}
