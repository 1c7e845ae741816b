// node browse.mjs MODULES CHROMIUM ADDRESS JOB: what the page shows, as JSON. JOB is JSON: {file, microphone, label, screenshot, dark}.

import { createRequire } from "node:module";

const [modules, executablePath, address, job] = process.argv.slice(2);
const { file, microphone, label, screenshot, dark } = JSON.parse(job);
const puppeteer = createRequire(`${modules}/`)("puppeteer-core");

const sound = microphone ? ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", `--use-file-for-fake-audio-capture=${microphone}`] : [];
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage", ...sound] });
try {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.setViewport({ width: 1000, height: 860 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
  await page.goto(address);
  const settled = (selector) => page.waitForSelector(`${selector}, #error:not([hidden])`, { timeout: 120_000 });
  await settled("#file:not([disabled])");
  if (file) {
    await (await page.$("#file")).uploadFile(file);
    await settled("#labels li");
  }
  if (microphone) {
    await page.click("#microphone");
    const heard = (wanted) => {
      const best = document.querySelector("#labels li");
      return document.querySelector("#error:not([hidden])") || (best?.querySelector("span").textContent === wanted && best.querySelector("data").value > 0.8);
    };
    await page.waitForFunction(heard, { timeout: 120_000 }, label);
  }
  if (screenshot) await page.screenshot({ path: screenshot });
  const shown = await page.evaluate(() => ({
    error: document.querySelector("#error:not([hidden])")?.textContent,
    model: document.querySelector("#model").textContent,
    labels: [...document.querySelectorAll("#labels li")].map((item) => [item.querySelector("span").textContent, Number(item.querySelector("data").value)]),
    lit: new Set(document.querySelector("canvas").getContext("2d").getImageData(0, 0, 960, 220).data).size,
  }));
  if (microphone) await page.click("#microphone");
  console.log(JSON.stringify({ ...shown, errors }));
} finally {
  await browser.close();
}
