#include "text/chat_eval.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/diagnostics.h"

namespace qb::text::chat {

void Scope::set(std::string_view name, Value value) {
  for (auto& [known, old] : names) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  names.emplace_back(name, std::move(value));
}

Result<std::string> Evaluator::run(const Node& root) {
  std::string out;
  out_ = &out;
  Scope scope;
  execute(root, scope);
  if (error_) return Error{Errc::invalid_argument, fmt::format("chat template, line {}: {}", error_line_, *error_)};
  return out;
}

Value Evaluator::fail(std::string what) {
  if (!error_) {
    error_ = std::move(what);
    error_line_ = line_;
  }
  return {};
}

bool Evaluator::charge(size_t steps) {
  steps_ += static_cast<int64_t>(std::min<size_t>(steps, most_steps));
  if (steps_ > most_steps) fail(fmt::format("more than {} steps", most_steps));
  return !failed();
}

bool Evaluator::charge_bytes(size_t bytes) {
  bytes_ += std::min(bytes, most_bytes);
  if (bytes_ > most_bytes) fail(fmt::format("more than {} bytes of text", most_bytes));
  return !failed();
}

Value Evaluator::make_string(std::string s) {
  if (!charge_bytes(s.size())) return {};
  return Value::string(std::move(s));
}

bool Evaluator::is_plain(const Value& v) {
  switch (v.kind) {
    case Kind::space:
    case Kind::macro:
    case Kind::function:
    case Kind::method:
    case Kind::loop:
      fail(fmt::format("{} inside another value is not supported", type_name(v)));
      return false;
    default:
      return true;
  }
}

Value Evaluator::make_list(Values items, ListKind kind) {
  if (!charge(items.size())) return {};
  for (const Value& item : items) {
    if (!is_plain(item)) return {};
  }
  Value v = Value::list(std::move(items), kind);
  if (v.depth() > deepest_value || v.weight() > heaviest_value) return fail("a value that is too large or nested too deep");
  return v;
}

Value Evaluator::make_dict(DictData dict) {
  if (!charge(dict.members.size())) return {};
  for (const auto& [key, value] : dict.members) {
    if (!is_plain(value)) return {};
  }
  if (dict.depth > deepest_value || dict.weight > heaviest_value) return fail("a value that is too large or nested too deep");
  return Value::dict(std::move(dict));
}

void Evaluator::write(std::string_view s) {
  if (failed() || !charge_bytes(s.size())) return;
  if (out_->size() + s.size() > most_output) {
    fail(fmt::format("more than {} bytes of output", most_output));
    return;
  }
  *out_ += s;
}

std::string Evaluator::str(const Value& v) {
  std::string out;
  if (failed() || !charge(v.weight())) return out;
  if (Result<void> r = append_str(v, out, most_output); !r) fail(r.error().what);
  charge_bytes(out.size());
  return out;
}

bool Evaluator::truth(const Value& v) {
  return is_true(v);
}

bool Evaluator::same(const Value& a, const Value& b) {
  if (a.is(Kind::string) && b.is(Kind::string)) return charge(1 + std::min(a.text().size(), b.text().size()) / 64) && a.text() == b.text();
  return charge(std::min(a.weight(), b.weight())) && equal(a, b);
}

const Value* Evaluator::find_name(std::string_view name, const Scope& scope) const {
  for (const Scope* s = &scope; s != nullptr; s = s->outer) {
    for (const auto& [known, value] : s->names) {
      if (known == name) return &value;
    }
  }
  return variables_.find(name);
}

std::string Evaluator::captured(const Node& body, const Scope& outer) {
  std::string text;
  std::string* const before = std::exchange(out_, &text);
  Scope scope{&outer, {}};
  execute(body, scope);
  out_ = before;
  return text;
}

void Evaluator::assign(const Node& n, Scope& scope, const Value& value) {
  if (failed()) return;
  if (n.integer == 0) {
    scope.set(n.names[0], value);
    return;
  }
  const auto items = iterate(value);
  if (!items) return;
  if (items->size() != n.names.size()) {
    fail(fmt::format("{} values for {} names", items->size(), n.names.size()));
    return;
  }
  for (size_t i = 0; i < n.names.size(); ++i) scope.set(n.names[i], (*items)[i]);
}

Evaluator::Flow Evaluator::execute(const Node& n, Scope& scope) {
  line_ = n.line;
  if (!charge(1)) return Flow::next;
  switch (n.kind) {
    case NodeKind::body: {
      if (++depth_ > deepest_evaluation) fail("nested too deep");
      Flow flow = Flow::next;
      for (const auto& kid : n.kids) {
        flow = execute(*kid, scope);
        if (failed() || flow != Flow::next) break;
      }
      --depth_;
      return flow;
    }
    case NodeKind::data:
      write(n.text);
      return Flow::next;
    case NodeKind::output: {
      const Value v = evaluate(*n.kids[0], scope);
      if (v.is(Kind::string))
        write(v.text());
      else
        write(str(v));
      return Flow::next;
    }
    case NodeKind::branch:
      for (size_t i = 0; i + 1 < n.kids.size(); i += 2) {
        const bool yes = truth(evaluate(*n.kids[i], scope));
        if (failed()) return Flow::next;
        if (yes) return execute(*n.kids[i + 1], scope);
      }
      return n.kids.size() % 2 == 1 ? execute(*n.kids.back(), scope) : Flow::next;
    case NodeKind::loop:
      return execute_loop(n, scope);
    case NodeKind::set:
      assign(n, scope, evaluate(*n.kids[0], scope));
      return Flow::next;
    case NodeKind::set_member: {
      const Value* space = find_name(n.text, scope);
      if (space == nullptr || !space->is(Kind::space)) {
        fail(fmt::format("'{}' is no namespace, so its member '{}' cannot be set", n.text, n.names[0]));
        return Flow::next;
      }
      const Value target = *space;
      Value v = evaluate(*n.kids[0], scope);
      if (failed() || !is_plain(v)) return Flow::next;
      for (auto& [name, old] : target.as<SpaceData>().members) {
        if (name == n.names[0]) {
          old = std::move(v);
          return Flow::next;
        }
      }
      target.as<SpaceData>().members.emplace_back(n.names[0], std::move(v));
      return Flow::next;
    }
    case NodeKind::set_block: {
      Value v = make_string(captured(*n.kids[1], scope));
      // The chain's innermost filter has no value of its own: it takes the block's text.
      if (n.kids[0] != nullptr && !failed()) {
        std::vector<const Node*> chain;
        for (const Node* f = n.kids[0].get(); f != nullptr; f = f->kids[0].get()) chain.push_back(f);
        for (auto f = chain.rbegin(); f != chain.rend() && !failed(); ++f) v = filter((*f)->text, v, arguments(**f, 1, scope));
      }
      if (!failed()) scope.set(n.names[0], std::move(v));
      return Flow::next;
    }
    case NodeKind::macro: {
      Value v{Kind::macro};
      v.data = std::make_shared<MacroData>(MacroData{&n, &scope});
      scope.set(n.text, std::move(v));
      return Flow::next;
    }
    case NodeKind::scope: {
      Scope inner{&scope, {}};
      execute(*n.kids[0], inner);
      return Flow::next;
    }
    case NodeKind::break_loop:
      return Flow::leave_loop;
    case NodeKind::continue_loop:
      return Flow::next_round;
    default:
      fail("an expression where a statement is expected");
      return Flow::next;
  }
}

Evaluator::Flow Evaluator::execute_loop(const Node& n, Scope& scope) {
  const Value iterable = evaluate(*n.kids[0], scope);
  if (failed()) return Flow::next;
  auto items = iterate(iterable);
  if (!items) return Flow::next;
  if (n.kids[1] != nullptr) {
    Values kept;
    for (const Value& v : *items) {
      Scope inner{&scope, {}};
      assign(n, inner, v);
      const bool keep = truth(evaluate(*n.kids[1], inner));
      if (failed()) return Flow::next;
      if (keep) kept.push_back(v);
    }
    *items = std::move(kept);
  }
  if (items->empty()) {
    if (n.kids[3] == nullptr) return Flow::next;
    Scope inner{&scope, {}};
    return execute(*n.kids[3], inner);
  }
  const auto data = std::make_shared<LoopData>();
  data->items = &*items;
  Value loop{Kind::loop};
  loop.data = data;
  for (size_t i = 0; i < items->size(); ++i) {
    data->at = i;
    Scope inner{&scope, {}};
    inner.set("loop", loop);
    assign(n, inner, (*items)[i]);
    if (failed()) break;
    const Flow flow = execute(*n.kids[2], inner);
    if (failed() || flow == Flow::leave_loop) break;
  }
  return Flow::next;
}

}  // namespace qb::text::chat
