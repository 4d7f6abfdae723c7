// A queue of many producers and one consumer, without locks.
//
// Producers push onto a linked stack with one compare-and-swap; the consumer takes the whole stack
// with one exchange and reverses it, so that it sees the items in the order of their pushes.
#ifndef CUPOLA_SUPPORT_MPSC_QUEUE_H_
#define CUPOLA_SUPPORT_MPSC_QUEUE_H_

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

namespace cupola {

template <typename T>
class MpscQueue {
 public:
  MpscQueue() = default;
  MpscQueue(const MpscQueue&) = delete;
  MpscQueue& operator=(const MpscQueue&) = delete;
  ~MpscQueue() { TakeAll(); }

  // Any thread.
  void Push(T item) {
    Node* node = new Node{std::move(item), head_.load(std::memory_order_relaxed)};
    while (!head_.compare_exchange_weak(node->next, node)) {
    }
  }

  // Everything pushed so far, oldest first. One thread at a time.
  std::vector<T> TakeAll() {
    Node* node = head_.exchange(nullptr);
    std::vector<T> items;
    while (node != nullptr) {
      items.push_back(std::move(node->item));
      Node* next = node->next;
      delete node;
      node = next;
    }
    std::reverse(items.begin(), items.end());
    return items;
  }

 private:
  struct Node {
    T item;
    Node* next;
  };
  std::atomic<Node*> head_{nullptr};
};

}  // namespace cupola

#endif  // CUPOLA_SUPPORT_MPSC_QUEUE_H_
