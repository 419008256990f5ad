// What a thread that serves others leaves behind, so that somebody else can see whether it gets on:
// whether it is at work, and how far it has come. One thread works at a time; anybody may look.
#ifndef ROMULUS_BASE_WORK_MARK_H_
#define ROMULUS_BASE_WORK_MARK_H_

#include <atomic>
#include <cstdint>

namespace romulus::base {

class WorkMark {
 public:
  // At work while it lives.
  class Scope {
   public:
    explicit Scope(WorkMark& mark) : mark_(mark) { mark_.moves_.fetch_add(1); }
    ~Scope() { mark_.moves_.fetch_add(1); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    WorkMark& mark_;
  };

  // Within a long piece of work: it gets on.
  void Step() { moves_.fetch_add(2); }

  struct Look {
    uint64_t moves = 0;  // differs from an earlier look's if something was done meanwhile
    bool at_work = false;
  };
  Look look() const {
    const uint64_t moves = moves_.load();
    return {moves, moves % 2 != 0};
  }

 private:
  std::atomic<uint64_t> moves_{0};  // odd: at work
};

}  // namespace romulus::base

#endif  // ROMULUS_BASE_WORK_MARK_H_
