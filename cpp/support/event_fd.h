// A wake-up that threads and event loops can wait for: a Linux eventfd, owned.
#ifndef CUPOLA_SUPPORT_EVENT_FD_H_
#define CUPOLA_SUPPORT_EVENT_FD_H_

namespace cupola {

class EventFd {
 public:
  EventFd();
  ~EventFd();
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;

  // Makes the descriptor readable until the next Clear or Wait. Never blocks; safe in any thread.
  void Signal();
  // Makes it unreadable again. Never blocks.
  void Clear();
  // Blocks until a Signal, at once if there was one since the last Clear or Wait.
  void Wait();

  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace cupola

#endif  // CUPOLA_SUPPORT_EVENT_FD_H_
