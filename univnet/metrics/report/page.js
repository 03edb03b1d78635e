// One version at a time, and the next one of the same utterance goes on where the last one stopped.
for (const article of document.querySelectorAll("article")) {
  let last = null;
  for (const player of article.querySelectorAll("audio")) {
    player.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
      if (last && last !== player && !last.ended) player.currentTime = last.currentTime;
      last = player;
    });
  }
}
