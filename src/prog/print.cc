#include <fmt/format.h>

#include <iterator>

#include "base/diagnostics.h"
#include "prog/program.h"
#include "prog/typing.h"

namespace qb::prog {
namespace {

void print_lanes(std::string& s, std::string_view index, const ir::Lanes& lanes) {
  if (lanes.count <= 1) return;
  fmt::format_to(std::back_inserter(s), ",{} in lanes", index);
  for (int32_t l = 0; l < lanes.count; ++l) fmt::format_to(std::back_inserter(s), "{}{}", l == 0 ? " " : ",", lanes.bit[static_cast<size_t>(l)]);
}

std::string_view less_text(ir::Less less) {
  return less == ir::Less::none ? "" : less == ir::Less::word ? ", words less one in each field" : ", fields less one";
}

void print(std::string& s, const Input& in) {
  auto out = std::back_inserter(s);
  fmt::format_to(out, "{}: file {} at {}, {} bytes, {} {} x {}", escape(in.tensor), in.file, in.offset, in.bytes, info(in.elem).name, in.view.dims[0],
                 in.view.dims[1]);
  if (!in.joined.empty()) {
    fmt::format_to(out, ", {} inputs {} each other{}:", in.joined.size(), in.join.along == 0 ? "below" : "beside", in.join.turns ? ", in turns" : "");
    for (const Input& part : in.joined) {
      s += " (";
      print(s, part);
      s += ')';
    }
  } else if (!in.view.parts.empty()) {
    fmt::format_to(out, " in {} parts {} each other", in.view.parts.size(), in.view.along == 0 ? "below" : "beside");
    for (const ir::View& part : in.view.parts)
      fmt::format_to(out, "{} {} x {} from bit {}", &part == in.view.parts.data() ? ":" : ",", part.dims[0], part.dims[1], part.offset);
  } else if (in.view != ir::row_major(in.view.dims[0], in.view.dims[1], bits(in.elem))) {
    fmt::format_to(out, ", bits {} + {} i + {} j", in.view.offset, in.view.stride[0], in.view.stride[1]);
    if (in.view.piece != 0) fmt::format_to(out, ", pieces of {} rows {} bits apart", in.view.piece, in.view.next_piece);
  }
  for (size_t axis = 0; axis < 2; ++axis) {
    const char name = axis == 0 ? 'i' : 'j';
    print_lanes(s, axis == 0 ? " i" : " j", in.view.lanes[axis]);
    if (const ir::View::Repeat& r = in.view.repeat[axis]; r.times > 1) fmt::format_to(out, ", {} repeated {} times from {} on", name, r.times, r.phase);
    if (in.view.words[axis] != 0) fmt::format_to(out, ", {} over words {} bits apart", name, in.view.words[axis]);
  }
  if (in.view.offset_binary) s += ", offset binary";
  if (in.view.planes) s += ", in planes";
  s += less_text(in.view.less);
  if (!in.mask.tensor.empty()) fmt::format_to(out, ", where {} has bits{}", escape(in.mask.tensor), in.mask.starts.empty() ? ", two of four" : "");
  if (in.rows_per == 0) s += ", whole";
  if (in.rows_per > 1) fmt::format_to(out, ", per {} rows", in.rows_per);
  if (in.plus != 0) fmt::format_to(out, ", plus {}", in.plus);
  if (in.times != 1) fmt::format_to(out, ", times {}", in.times);
  for (const Input& by : in.by) {
    s += ", times (";
    print(s, by);
    s += ')';
  }
  if (in.plus != 0) fmt::format_to(out, ", minus {}", in.plus);
}

std::string_view sign(ir::ScaleForm form) {
  switch (form) {
    case ir::ScaleForm::multiply:
      return "*";
    case ir::ScaleForm::divide:
      return "/";
    case ir::ScaleForm::exponent:
      return "* 2^";
  }
  return "?";
}

struct PrintOp {
  std::string& s;
  ValueId& next;

  void result(int count) const {
    s += "  ";
    for (int i = 0; i < count; ++i) fmt::format_to(std::back_inserter(s), "{}%{}", i == 0 ? "" : ", ", next++);
    s += " = ";
  }
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) const {
    fmt::format_to(std::back_inserter(s), format, std::forward<Args>(args)...);
    s += '\n';
  }

  void operator()(const Copy& op) const {
    result(1);
    line("copy %{}", op.src);
  }
  void operator()(const Literal& op) const {
    result(1);
    fmt::format_to(std::back_inserter(s), "literal {} 0x", info(op.elem).name);
    for (char c : op.bytes) fmt::format_to(std::back_inserter(s), "{:02x}", static_cast<unsigned char>(c));
    s += '\n';
  }
  void operator()(const Recode& op) const {
    result(1);
    line("recode %{} to {}", op.src, info(op.to).name);
  }
  void operator()(const Rescale& op) const {
    result(1);
    line("rescale 1 / %{}", op.src);
  }
  void operator()(const Dequantize& op) const {
    result(1);
    fmt::format_to(std::back_inserter(s), "dequantize {} ", ir::to_string(op.type));
    if (op.zero != -1)
      fmt::format_to(std::back_inserter(s), "(%{} - %{})", op.code, op.zero);
    else
      fmt::format_to(std::back_inserter(s), "%{}", op.code);
    fmt::format_to(std::back_inserter(s), " {} %{}", sign(op.scale_form), op.scale);
    if (op.global != -1) fmt::format_to(std::back_inserter(s), " {} %{}", sign(op.global_form), op.global);
    if (op.order != -1) fmt::format_to(std::back_inserter(s), ", groups by %{}", op.order);
    s += '\n';
  }
  void operator()(const Fold& op) const {
    result(1);
    fmt::format_to(std::back_inserter(s), "fold %{}", op.src);
    if (op.a != -1) fmt::format_to(std::back_inserter(s), " + %{} x %{}", op.b, op.a);
    if (op.prescale != -1) fmt::format_to(std::back_inserter(s), ", columns times %{}", op.prescale);
    s += '\n';
  }
  void operator()(const Rotate& op) const {
    result(1);
    line("rotate %{} {} by %{}{} / {}", op.src, op.down ? "down" : "along", op.matrix, op.transposed ? " transposed" : "", op.divisor);
  }
  void operator()(const Hadamard& op) const {
    result(1);
    fmt::format_to(std::back_inserter(s), "hadamard %{}", op.src);
    if (op.gains != -1) fmt::format_to(std::back_inserter(s), ", columns times %{}", op.gains);
    if (op.along.block > 1) fmt::format_to(std::back_inserter(s), ", along in blocks of {}, signs of {}", op.along.block, op.along.period);
    if (op.down.block > 1) fmt::format_to(std::back_inserter(s), ", down in blocks of {}, signs of {}", op.down.block, op.down.period);
    line(" to {}", info(op.to).name);
  }
  void operator()(const Quantize& op) const {
    result(results_of(op));
    fmt::format_to(std::back_inserter(s), "quantize {} {} %{}", ir::to_string(op.type), op.recipe, op.src);
    if (op.reduction != -1) fmt::format_to(std::back_inserter(s), " amax #{}", op.reduction);
    s += '\n';
  }
  void operator()(const Turn& op) const {
    result(1);
    line("turn %{}", op.src);
  }
  void operator()(const Pack& op) const {
    result(1);
    line("pack %{} as {}", op.src, ir::to_string(op.layout));
  }
  void operator()(const PackWords& op) const {
    result(1);
    fmt::format_to(std::back_inserter(s), "pack %{} as words of {} bits a code{}{}", op.src, op.bits, op.down ? ", down the columns" : "",
                   op.planes ? ", in planes" : "");
    print_lanes(s, "", op.lanes);
    s += less_text(op.less);
    s += '\n';
  }
  void operator()(const Pad& op) const {
    result(1);
    line("pad %{} to {} columns", op.src, op.cols);
  }
  void operator()(const Zeros& op) const {
    result(1);
    line("{} zeros", op.cols);
  }
  void operator()(const Groups& op) const {
    result(1);
    line("groups of {} over {} columns", op.group, op.cols);
  }
  void operator()(const PackNibbles& op) const {
    result(1);
    line("pack %{} as nibbles, {}", op.src, op.order == ir::Nibbles::row_pairs ? "pairs of rows" : "high ones first");
  }
};

}  // namespace

std::string to_text(const Program& p) {
  std::string s = fmt::format("program: {} rows", p.rows);
  if (p.row_multiple != 1) fmt::format_to(std::back_inserter(s), ", blocks of {}", p.row_multiple);
  s += '\n';
  ValueId next = 0;
  for (const Input& in : p.inputs) {
    fmt::format_to(std::back_inserter(s), "  %{} = ", next++);
    print(s, in);
    s += '\n';
  }
  for (size_t i = 0; i < p.reductions.size(); ++i) {
    fmt::format_to(std::back_inserter(s), "  #{} = absmax over {}\n", i, p.reductions[i].over.size() == 1 ? "one tensor" : "several tensors");
    for (const Input& in : p.reductions[i].over) {
      s += "    ";
      print(s, in);
      s += '\n';
    }
  }
  for (const Op& op : p.ops) std::visit(PrintOp{s, next}, op);
  for (const Output& out : p.outputs) {
    fmt::format_to(std::back_inserter(s), "  {} = %{}: {} [", escape(out.name), out.value, info(out.dtype).name);
    for (size_t i = 0; i < out.shape.size(); ++i) fmt::format_to(std::back_inserter(s), "{}{}", i == 0 ? "" : ", ", out.shape[i]);
    s += "]\n";
  }
  return s;
}

}  // namespace qb::prog
