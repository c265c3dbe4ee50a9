// The replay bar: what the reader wants of a recording, told to the server. Knows nothing of training.

export class Replay {
  constructor(root, changed) {
    this.wish = null;
    this.held = false;  // the slider is in the reader's hand
    const find = (query) => root.querySelector(query);
    [this.play, this.speed, this.slider] = [find(".hy-play"), find(".hy-speed"), find(".hy-at")];
    const wants = (change) => { this.wish = { ...this.wish, ...change }; this.show(); changed(); };
    find(".hy-again").onclick = () => { this.turn = (this.turn ?? 0) + 1; wants({ at: 0, turn: this.turn, playing: true, speed: Number(this.speed.value) }); };
    find(".hy-leave").onclick = () => { this.leave(); changed(); };
    this.play.onclick = () => wants({ playing: !this.wish.playing });
    this.speed.onchange = () => wants({ speed: Number(this.speed.value) });
    this.slider.oninput = () => { this.held = true; };
    this.slider.onchange = () => { this.held = false; this.turn += 1; wants({ at: Number(this.slider.value), turn: this.turn }); };
  }

  leave() { this.wish = null; }

  show() {
    this.play.textContent = this.wish.playing ? "Hold replay" : "Go on replaying";
    this.play.ariaPressed = this.wish.playing;
  }

  stands(at) { if (!this.held) this.slider.value = at; }
}
