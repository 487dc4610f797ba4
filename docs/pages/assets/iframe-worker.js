// A page that is opened from a folder may start no worker: there the script of the search runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.isReady = new Promise((resolve) => { this.frame.onload = resolve; }).then(() => this.run(url));
      document.body.append(this.frame);
    }

    run(url) {
      const { contentWindow: inside, contentDocument: page } = this.frame;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = page.createElement("script");
      script.src = url;
      page.body.append(script);
      return new Promise((resolve, reject) => { script.onload = resolve; script.onerror = reject; });
    }

    async postMessage(data) {
      await this.isReady;
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
